// For tests: a scheduler without queue, journal or workers, in a thread of its own behind a real socket. It "generates"
// a fixed text for each job, a few bytes per tick, keeps to the credit that a client gives it, and misbehaves as told.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "base/limits.h"
#include "base/utf8.h"
#include "transport/service_loop.h"

namespace optserve::client {

// A job that the fake scheduler takes.
inline protocol::JobSpec job_of(const std::string& prompt) {
  protocol::JobSpec spec;
  spec.model = "m";
  spec.prompt = prompt;
  spec.ttl_ms = 20'000;
  return spec;
}

class FakeScheduler final : public transport::Service {
 public:
  using Peer = transport::Peer;
  using Outbox = transport::Outbox;

  struct Faults {
    std::atomic<int> drop_submit_replies{0};
    std::atomic<int> refuse_submits{0};      // refuses whole messages with kBusy
    std::atomic<int> drop_every{0};          // drops every n-th event
    std::atomic<bool> repeat_events{false};  // sends each event twice
    std::atomic<bool> mute{false};           // reads but does not answer
    std::atomic<bool> stalled{false};        // generates nothing
  };

  static std::string text_of(const std::string& prompt) {
    std::string text;
    for (int i = 0; i < 40; ++i) text += prompt + " \u00e9" + std::to_string(i);
    return text;
  }

  // Listens on a free port or on `endpoint`, such as that of an earlier scheduler with the same jobs.
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

  // A job as the "journal" keeps it across a restart. Only accessed while no thread runs.
  struct Job {
    JobId id;
    std::string text;
    protocol::JobState state = protocol::JobState::kRunning;
    std::string group = {};
    uint64_t order = 0;
    std::string tenant = {};
    std::string traceparent = {};
  };
  std::map<std::string, Job> jobs;  // by key
  std::atomic<int> submits{0}, attaches{0}, slow{0};
  std::atomic<uint64_t> most_on_the_way{0};  // stream content beyond what a client's credit says it has taken

  // Every job has lost its last worker.
  void kill_jobs() {
    const std::lock_guard lock(mutex_);
    for (auto& [key, job] : jobs) job.state = protocol::JobState::kDead;
  }

  void on_message(const Peer& from, protocol::Message message, Instant, Outbox& out) override {
    if (faults_.mute) return;
    const std::lock_guard lock(mutex_);
    if (auto* ping = std::get_if<protocol::Ping>(&message)) out.send(from, protocol::Pong{ping->number, term_});
    if (auto* submit = std::get_if<protocol::Submit>(&message)) on_submit(from, *submit, out);
    if (auto* attach = std::get_if<protocol::Attach>(&message)) on_attach(from, *attach, out);
    if (auto* get = std::get_if<protocol::GetJob>(&message)) answer_status(from, get->request, get->job, out);
    if (auto* cancel = std::get_if<protocol::Cancel>(&message)) on_cancel(from, *cancel, out);
    if (auto* credit = std::get_if<protocol::Credit>(&message)) on_credit(from, *credit);
    if (auto* get = std::get_if<protocol::GetStatus>(&message)) out.send(from, status(get->request));
    if (auto* control = std::get_if<protocol::Control>(&message)) {
      mode_ = control->action == protocol::ControlAction::kPause   ? protocol::QueueMode::kPaused
              : control->action == protocol::ControlAction::kDrain ? protocol::QueueMode::kDraining
                                                                   : protocol::QueueMode::kOpen;
      out.send(from, status(control->request));
    }
    if (auto* list = std::get_if<protocol::ListJobs>(&message)) out.send(from, listed(*list));
    if (auto* requeue = std::get_if<protocol::Requeue>(&message)) on_requeue(from, *requeue, out);
    if (auto* purge = std::get_if<protocol::Purge>(&message)) {
      const auto count = std::erase_if(jobs, [&](const auto& item) {
        return protocol::is_terminal(item.second.state) && matches(item.second, purge->filter);
      });
      out.send(from, protocol::Purged{purge->request, static_cast<int64_t>(count)});
    }
    if (auto* get = std::get_if<protocol::GetGroup>(&message)) out.send(from, group(*get));
    if (auto* backup = std::get_if<protocol::Backup>(&message)) {
      out.send(from, protocol::BackedUp{backup->request, "journal-1.db", 4096});
    }
  }
  void on_undeliverable(const Peer&, protocol::Message, bool slow_peer, Instant, Outbox&) override {
    slow += slow_peer;
  }
  void on_tick(Instant, Outbox& out) override {
    if (faults_.stalled || faults_.mute) return;
    const std::lock_guard lock(mutex_);
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

  // How much a client may still be sent on its connection.
  struct Window {
    uint64_t first_consumed = 0, taken = 0, sent = 0, credit = 0;
  };

  void on_credit(const Peer& from, const protocol::Credit& credit) {
    const auto [found, is_new] = windows_.try_emplace(from);
    Window& window = found->second;
    if (is_new) window.first_consumed = credit.consumed;
    window.taken = credit.consumed - window.first_consumed;
    window.credit = window.taken + credit.window;
  }
  // False if the client must consume something first.
  bool use_credit(const Peer& to, uint64_t cost) {
    const auto found = windows_.find(to);
    if (found == windows_.end()) return true;
    Window& window = found->second;
    if (window.sent + cost > window.credit) return false;
    window.sent += cost;
    most_on_the_way = std::max<uint64_t>(most_on_the_way, window.sent - window.taken);
    return true;
  }
  protocol::SystemStatus status(uint64_t request) const {
    protocol::SystemStatus status;
    status.request = request;
    status.term = term_;
    status.mode = mode_;
    protocol::ServiceStatus& worker = status.services.emplace_back();
    worker.kind = "worker";
    worker.models = {"m"};
    return status;
  }
  static bool matches(const Job& job, const protocol::JobFilter& filter) {
    return (!filter.job || *filter.job == job.id) && (!filter.state || *filter.state == job.state) &&
           (filter.group.empty() || filter.group == job.group) && (!filter.tenant || *filter.tenant == job.tenant);
  }
  protocol::JobList listed(const protocol::ListJobs& list) const {
    std::map<uint64_t, const Job*> in_order;
    for (const auto& [key, job] : jobs) {
      if (job.order > list.after && matches(job, list.filter)) in_order[job.order] = &job;
    }
    protocol::JobList answer{list.request, {}, in_order.size() > list.limit};
    for (const auto& [order, job] : in_order) {
      if (answer.jobs.size() == list.limit) break;
      protocol::JobSummary& summary = answer.jobs.emplace_back();
      summary.job = job->id;
      summary.order = order;
      summary.state = job->state;
    }
    return answer;
  }
  protocol::GroupStatus group(const protocol::GetGroup& get) {
    protocol::GroupStatus status;
    status.request = get.request;
    for (auto& [key, job] : jobs) {
      if (job.group != get.group) continue;
      if (get.cancel && !protocol::is_terminal(job.state)) job.state = protocol::JobState::kCancelled;
      status.open += !protocol::is_terminal(job.state);
      status.cancelled += job.state == protocol::JobState::kCancelled;
    }
    return status;
  }
  void on_requeue(const Peer& from, const protocol::Requeue& requeue, Outbox& out) {
    Job* job = find(requeue.job);
    if (job == nullptr || job->state != protocol::JobState::kDead) {
      out.send(from, protocol::Refused{requeue.request, ErrorCode::kNotFound, "no dead job has this id"});
      return;
    }
    job->state = protocol::JobState::kQueued;
    answer_status(from, requeue.request, requeue.job, out);
  }
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
      if (is_new) {
        found->second = {Id128::random(), text_of(spec.prompt), protocol::JobState::kRunning, spec.group, ++order_,
                         spec.tenant,     spec.traceparent};
      }
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
    result.tenant = job.tenant;
    result.traceparent = job.traceparent;
    if (job.state == protocol::JobState::kSucceeded) result.text = job.text;
    return result;
  }
  void advance(Stream& stream, Outbox& out) {
    const std::string& text = stream.job->text;
    const size_t end = std::min(text.size(), stream.sent + 16);
    if (stream.job->state == protocol::JobState::kCancelled || stream.sent >= text.size()) {
      if (!protocol::is_terminal(stream.job->state)) stream.job->state = protocol::JobState::kSucceeded;
      const protocol::JobResult result = result_of(*stream.job);
      if (!use_credit(stream.to, protocol::stream_cost(result))) return;
      out.send(stream.to, protocol::JobFinished{result});
      stream.ended = true;
      return;
    }
    const size_t whole = stream.sent + valid_utf8_prefix(std::string_view(text).substr(stream.sent, end - stream.sent));
    protocol::JobEvents events;
    events.events.push_back({stream.job->id, stream.sent, text.substr(stream.sent, whole - stream.sent), 0, 0, 0});
    const bool is_dropped = faults_.drop_every != 0 && (events_ + 1) % faults_.drop_every == 0;
    const uint64_t cost = protocol::stream_cost(events.events[0]) * (faults_.repeat_events ? 2 : 1);
    if (!is_dropped && !use_credit(stream.to, cost)) return;
    stream.sent = whole;
    ++events_;
    if (is_dropped) return;
    if (faults_.repeat_events) out.send(stream.to, events);
    out.send(stream.to, std::move(events));
  }

  Faults& faults_;
  uint64_t term_;
  int events_ = 0;
  uint64_t order_ = 0;
  protocol::QueueMode mode_ = protocol::QueueMode::kOpen;
  std::mutex mutex_;  // guards what a test changes while the thread runs
  std::map<Peer, Window> windows_;
  std::vector<Stream> streams_;
  std::string endpoint_;
  SystemClock clock_;
  metrics::Registry metrics_;
  transport::ServiceLoop loop_{*this, clock_, metrics_};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace optserve::client
