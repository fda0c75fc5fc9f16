// For tests: a scheduler without queue, journal or workers, in a thread of its own behind a real socket. It "generates"
// a fixed text for each job, a few bytes a tick, and misbehaves as told.
#pragma once

#include <atomic>
#include <map>
#include <string>
#include <thread>

#include "base/limits.h"
#include "base/utf8.h"
#include "transport/service_loop.h"

namespace optserve::client {

class FakeScheduler final : public transport::Service {
 public:
  using Peer = transport::Peer;
  using Outbox = transport::Outbox;

  struct Faults {
    std::atomic<int> drop_submit_replies{0};
    std::atomic<int> refuse_submits{0};      // with kBusy, the whole message
    std::atomic<int> drop_every{0};          // of the events, each n-th
    std::atomic<bool> repeat_events{false};  // each one twice
    std::atomic<bool> mute{false};           // reads, answers nothing
    std::atomic<bool> stalled{false};        // generates nothing
  };

  static std::string text_of(const std::string& prompt) {
    std::string text;
    for (int i = 0; i < 40; ++i) text += prompt + " \u00e9" + std::to_string(i);
    return text;
  }

  // Listens on a free port, or on `endpoint`, where a scheduler with the same jobs was before.
  explicit FakeScheduler(Faults& faults, const std::string& endpoint = "tcp://127.0.0.1:0", uint64_t term = 1)
      : faults_(faults), term_(term) {
    loop_.bind(endpoint, {.message_bytes_max = limits::kClientMessageBytesMax, .high_water_mark = 64});
    endpoint_ = loop_.bound_endpoint(0);
  }
  ~FakeScheduler() override { stop(); }

  void start() {
    thread_ = std::thread([this] {
      while (!stopping_) loop_.turn(milliseconds(5));
    });
  }
  void stop() {
    stopping_ = true;
    if (thread_.joinable()) thread_.join();
  }
  const std::string& endpoint() const { return endpoint_; }

  // A job as the "journal" keeps it over a restart. Only touched while no thread runs.
  struct Job {
    JobId id;
    std::string text;
    protocol::JobState state = protocol::JobState::kRunning;
  };
  std::map<std::string, Job> jobs;  // by key
  std::atomic<int> submits{0}, attaches{0}, slow{0};

  void on_message(const Peer& from, protocol::Message message, Instant, Outbox& out) override {
    if (faults_.mute) return;
    if (auto* ping = std::get_if<protocol::Ping>(&message)) out.send(from, protocol::Pong{ping->number, term_});
    if (auto* submit = std::get_if<protocol::Submit>(&message)) on_submit(from, *submit, out);
    if (auto* attach = std::get_if<protocol::Attach>(&message)) on_attach(from, *attach, out);
    if (auto* get = std::get_if<protocol::GetJob>(&message)) answer_status(from, get->request, get->job, out);
    if (auto* cancel = std::get_if<protocol::Cancel>(&message)) on_cancel(from, *cancel, out);
    if (auto* get = std::get_if<protocol::GetStatus>(&message)) {
      protocol::SystemStatus status;
      status.request = get->request;
      status.term = term_;
      out.send(from, status);
    }
  }
  void on_undeliverable(const Peer&, protocol::Message, bool slow_peer, Instant, Outbox&) override {
    slow += slow_peer;
  }
  void on_tick(Instant, Outbox& out) override {
    if (faults_.stalled || faults_.mute) return;
    for (Stream& stream : streams_) advance(stream, out);
    std::erase_if(streams_, [](const Stream& s) { return s.ended; });
  }
  Duration tick_interval() const override { return milliseconds(2); }
  void begin_drain(Instant, Outbox&) override {}
  bool is_drained() const override { return true; }

 private:
  struct Stream {
    Peer to;
    Job* job;
    size_t sent;
    bool ended = false;
  };

  Job* find(const JobId& id) {
    for (auto& [key, job] : jobs) {
      if (job.id == id) return &job;
    }
    return nullptr;
  }
  void on_submit(const Peer& from, const protocol::Submit& submit, Outbox& out) {
    ++submits;
    if (faults_.refuse_submits > 0) {
      --faults_.refuse_submits;
      out.send(from, protocol::Refused{submit.request, ErrorCode::kBusy, "the queue is full"});
      return;
    }
    protocol::SubmitReply reply{submit.request, {}};
    for (const auto& spec : submit.jobs) {
      const auto [found, is_new] = jobs.try_emplace(spec.key);
      if (is_new) found->second = {Id128::random(), text_of(spec.prompt)};
      reply.outcomes.push_back({found->second.id, std::nullopt, "", 0, !is_new});
      if (submit.stream && is_new) streams_.push_back({from, &found->second, 0});
    }
    if (faults_.drop_submit_replies > 0) {
      --faults_.drop_submit_replies;
      streams_.clear();
      return;
    }
    out.send(from, reply);
  }
  void on_attach(const Peer& from, const protocol::Attach& attach, Outbox& out) {
    ++attaches;
    Job* job = find(attach.job);
    if (job == nullptr) {
      out.send(from, protocol::Refused{attach.request, ErrorCode::kNotFound, "no such job"});
      return;
    }
    std::erase_if(streams_, [&](const Stream& s) { return s.to == from && s.job == job; });
    streams_.push_back({from, job, static_cast<size_t>(attach.text_offset)});
  }
  void on_cancel(const Peer& from, const protocol::Cancel& cancel, Outbox& out) {
    if (Job* job = find(cancel.job); job != nullptr && !protocol::is_terminal(job->state)) {
      job->state = protocol::JobState::kCancelled;
    }
    answer_status(from, cancel.request, cancel.job, out);
  }
  void answer_status(const Peer& from, uint64_t request, const JobId& id, Outbox& out) {
    if (const Job* job = find(id)) {
      out.send(from, protocol::JobStatus{request, result_of(*job)});
    } else {
      out.send(from, protocol::Refused{request, ErrorCode::kNotFound, "no such job"});
    }
  }
  static protocol::JobResult result_of(const Job& job) {
    protocol::JobResult result;
    result.job = job.id;
    result.state = job.state;
    if (job.state == protocol::JobState::kSucceeded) result.text = job.text;
    return result;
  }
  void advance(Stream& stream, Outbox& out) {
    const std::string& text = stream.job->text;
    const size_t end = std::min(text.size(), stream.sent + 16);
    if (stream.job->state == protocol::JobState::kCancelled || stream.sent >= text.size()) {
      if (!protocol::is_terminal(stream.job->state)) stream.job->state = protocol::JobState::kSucceeded;
      out.send(stream.to, protocol::JobFinished{result_of(*stream.job)});
      stream.ended = true;
      return;
    }
    const size_t whole = stream.sent + valid_utf8_prefix(std::string_view(text).substr(stream.sent, end - stream.sent));
    protocol::JobEvents events;
    events.events.push_back({stream.job->id, stream.sent, text.substr(stream.sent, whole - stream.sent), 0, 0, 0});
    stream.sent = whole;
    ++events_;
    if (faults_.drop_every != 0 && events_ % faults_.drop_every == 0) return;
    if (faults_.repeat_events) out.send(stream.to, events);
    out.send(stream.to, std::move(events));
  }

  Faults& faults_;
  uint64_t term_;
  int events_ = 0;
  std::vector<Stream> streams_;
  std::string endpoint_;
  SystemClock clock_;
  Registry metrics_;
  transport::ServiceLoop loop_{*this, clock_, metrics_};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace optserve::client
