// A scheduler with a clock moved by hand and peers that the test plays itself.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/scheduler_service.h"
#include "scheduler/scheduler_test_fakes.h"

namespace optserve::scheduler::testing {

class World {
 public:
  using Peer = transport::Peer;

  explicit World(SchedulerOptions given = {}, journal::JobStore* other_store = nullptr,
                 journal::Recovery recovery = fresh(), FakeClock* shared_clock = nullptr)
      : clock(shared_clock != nullptr ? *shared_clock : own_clock_),
        store(other_store != nullptr ? *other_store : memory_) {
    given.start = clock.now();
    service = std::make_unique<SchedulerService>(given, store, std::move(recovery), registry_);
  }

  static journal::Recovery fresh() {
    journal::Recovery recovery;
    recovery.term = 1;
    return recovery;
  }
  void send(const Peer& from, protocol::Message message) {
    service->on_message(from, std::move(message), clock.now(), out_);
    flush();
  }
  void flush() {
    service->on_flush(clock.now(), out_);
    for (auto& item : out_.take()) sent.push_back(std::move(item));
  }
  void undeliverable(const Peer& to, protocol::Message message, bool slow) {
    service->on_undeliverable(to, std::move(message), slow, clock.now(), out_);
    flush();
  }
  void end_connection(const Peer& of) {
    service->on_ended(of, clock.now(), out_);
    flush();
  }
  // Ticks included, as the loop gives them.
  void advance(Duration by) {
    for (Duration left = by; left > Duration::zero(); left -= milliseconds(100)) {
      clock.advance(std::min<Duration>(left, milliseconds(100)));
      service->on_tick(clock.now(), out_);
      flush();
    }
  }
  void drain() { service->begin_drain(clock.now(), out_); }

  // Takes the messages of one kind out of what was sent to `to`.
  template <class M>
  std::vector<M> take(const Peer& to) {
    std::vector<M> found;
    std::erase_if(sent, [&](transport::Outgoing& item) {
      if (item.to != to || !std::holds_alternative<M>(item.message)) return false;
      found.push_back(std::get<M>(std::move(item.message)));
      return true;
    });
    return found;
  }
  template <class M>
  M only(const Peer& to) {
    auto found = take<M>(to);
    EXPECT_EQ(found.size(), 1u);
    return found.empty() ? M{} : std::move(found.front());
  }

  void add_tokenizer(const Peer& peer, uint8_t number, const std::string& vocabulary = "v1") {
    send(peer, protocol::Register{instance(number),
                                  protocol::ServiceKind::kTokenizer,
                                  "tokenizer",
                                  "test",
                                  {model_info("opt", vocabulary)},
                                  0,
                                  0,
                                  1});
  }
  // A worker whose checkpoint has no tokenizer.
  void add_worker_of_ids(const Peer& peer, uint8_t number) {
    const auto model = model_info("opt", std::string(protocol::kNoVocabulary));
    send(peer,
         protocol::Register{instance(number), protocol::ServiceKind::kWorker, "worker", "test", {model}, 8, 0, 1});
    take<protocol::Registered>(peer);
  }
  void add_worker(const Peer& peer, uint8_t number, int32_t max_sequences = 8, int64_t kv_tokens = 0) {
    send(peer, protocol::Register{instance(number),
                                  protocol::ServiceKind::kWorker,
                                  "worker",
                                  "test",
                                  {model_info("opt")},
                                  max_sequences,
                                  kv_tokens,
                                  1});
  }
  // A tokenizer and a worker.
  void add_services() {
    add_tokenizer(tokenizer, 1);
    add_worker(worker, 2);
    take<protocol::Registered>(tokenizer);
    take<protocol::Registered>(worker);
  }
  void heartbeat(const Peer& peer, uint8_t number, uint64_t steps = 0) {
    send(peer, protocol::Heartbeat{instance(number), 1, steps, 0, false});
  }
  // Answers what tokenizers were asked until nothing is asked any more.
  void tokenize() {
    for (bool any = true; any;) {
      any = false;
      for (const auto& question : take<protocol::Encode>(tokenizer)) {
        any = true, send(tokenizer, encode_bytes(question));
      }
      for (const auto& question : take<protocol::Decode>(tokenizer)) {
        any = true, send(tokenizer, decode_bytes(question));
      }
    }
  }
  JobId submit(protocol::JobSpec spec, bool stream = true) {
    send(client, protocol::Submit{7, stream, {std::move(spec)}});
    const auto reply = only<protocol::SubmitReply>(client);
    EXPECT_EQ(reply.request, 7u);
    if (reply.outcomes.size() != 1 || !reply.outcomes[0].job) {
      ADD_FAILURE() << "not accepted: " << (reply.outcomes.empty() ? "" : reply.outcomes[0].message);
      return {};
    }
    return *reply.outcomes[0].job;
  }
  protocol::SubmitOutcome submit_refused(protocol::JobSpec spec) {
    send(client, protocol::Submit{7, true, {std::move(spec)}});
    const auto reply = only<protocol::SubmitReply>(client);
    return reply.outcomes.empty() ? protocol::SubmitOutcome{} : reply.outcomes[0];
  }
  // Submits, encodes, and returns the lease.
  protocol::DispatchItem submit_and_dispatch(protocol::JobSpec spec) {
    submit(std::move(spec));
    tokenize();
    return dispatched(worker);
  }
  protocol::DispatchItem dispatched(const Peer& to) {
    const auto message = only<protocol::Dispatch>(to);
    EXPECT_EQ(message.items.size(), 1u);
    return message.items.empty() ? protocol::DispatchItem{} : message.items[0];
  }
  // The worker generates `count` tokens from position `from` on, one message each.
  void generate(const Peer& from_worker, const protocol::DispatchItem& item, size_t from, size_t count,
                uint64_t term = 1) {
    for (size_t i = from; i < from + count; ++i) {
      protocol::Tokens message;
      message.term = term;
      add_step(message, item, i);
      const bool last = message.finished[0] != 0;
      send(from_worker, std::move(message));
      if (last) return;
    }
  }
  std::string streamed_text() {
    std::string text;
    for (const auto& message : take<protocol::JobEvents>(client)) {
      for (const auto& event : message.events) {
        EXPECT_EQ(event.text_offset, text.size());
        text += event.text;
      }
    }
    return text;
  }

  std::string metrics() const { return registry_.text(); }

  FakeClock& clock;
  std::vector<transport::Outgoing> sent;
  const Peer client{0, "client"}, tokenizer{1, "tokenizer"}, worker{1, "worker"}, worker2{1, "worker2"};

 private:
  FakeClock own_clock_;
  metrics::Registry registry_;
  journal::MemoryStore memory_;
  transport::Outbox out_;

 public:
  journal::JobStore& store;
  std::unique_ptr<SchedulerService> service;
};

// A job that needs no tokenizer to start.
inline protocol::JobSpec ids_spec(const std::string& key, const std::string& tenant = "", int32_t max_new = 8) {
  auto spec = job_spec(key, "", max_new);
  spec.prompt_ids = {2, 5, 6, 7};
  spec.tenant = tenant;
  spec.sampling.ignore_eos = true;
  return spec;
}

// A token that ends nothing, for each lease; `last` ends them.
inline void send_tokens(World& world, const World::Peer& worker, const std::vector<uint64_t>& leases, uint32_t position,
                        bool last = false) {
  protocol::Tokens message;
  message.term = 1;
  for (const uint64_t lease : leases) {
    message.leases.push_back(lease);
    message.positions.push_back(position);
    message.tokens.push_back(kFirstByteId + 'a');
    message.finished.push_back(
        static_cast<uint8_t>(last ? sampling::FinishReason::kLength : sampling::FinishReason::kNone));
  }
  world.send(worker, std::move(message));
}

}  // namespace optserve::scheduler::testing
