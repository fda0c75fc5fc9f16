// Peers that do only what the protocol asks of them, and a scheduler to which they connect.
#pragma once

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "bench/bench_journal.h"
#include "bench/bench_loop.h"
#include "keys/process_keys.h"
#include "scheduler/scheduler_service.h"
#include "transport/scheduler_link.h"

namespace optserve::bench {

using protocol::Message;
using transport::Outbox;
using transport::Peer;

inline protocol::ModelInfo model() { return {"opt", "v", "m", 2048, 50272}; }

class RegisteredPeer : public BenchPeer {
 public:
  RegisteredPeer(protocol::ServiceKind kind, int32_t max_sequences)
      : link_({InstanceId::random(), kind, "null", "bench", {model()}, max_sequences, 0, 1},
              {.register_first = milliseconds(1)}, {}) {}
  void on_message(const Peer& from, Message message, Instant now, Outbox& out) override {
    if (!link_.on_message(message, now, out)) on_work(from, message, out);
    if (link_.is_registered()) registered = true;
  }
  void on_tick(Instant now, Outbox& out) override { link_.on_tick(now, out); }
  virtual void on_work(const Peer& from, const Message& message, Outbox& out) = 0;

  std::atomic<bool> registered{false};

 protected:
  transport::SchedulerLink link_;
};

// Answers at once with one character for each id.
class NullTokenizer final : public RegisteredPeer {
 public:
  NullTokenizer() : RegisteredPeer(protocol::ServiceKind::kTokenizer, 0) {}
  void on_work(const Peer& from, const Message& message, Outbox& out) override {
    const auto* question = std::get_if<protocol::Decode>(&message);
    if (question == nullptr) return;
    protocol::Decoded answer;
    answer.items.reserve(question->items.size());
    for (const protocol::DecodeItem& item : question->items) {
      protocol::DecodedItem decoded;
      decoded.ticket = item.ticket;
      decoded.text.assign(item.ids.size(), 'x');
      answer.items.push_back(std::move(decoded));
    }
    out.send(from, std::move(answer));
  }
};

// A worker that computes nothing: it holds leases and answers each with one token a step.
class TokenWorker : public RegisteredPeer {
 public:
  explicit TokenWorker(int32_t max_sequences) : RegisteredPeer(protocol::ServiceKind::kWorker, max_sequences) {}
  void on_work(const Peer& from, const Message& message, Outbox&) override {
    scheduler_ = from;
    if (const auto* dispatch = std::get_if<protocol::Dispatch>(&message)) {
      for (const auto& item : dispatch->items) {
        leases_.push_back({item.lease, item.sampling.seed, 0, static_cast<uint32_t>(item.max_new_tokens)});
      }
    } else if (const auto* revoke = std::get_if<protocol::Revoke>(&message)) {
      std::erase_if(leases_, [&](const Lease& lease) {
        return std::find(revoke->leases.begin(), revoke->leases.end(), lease.number) != revoke->leases.end();
      });
    }
  }

 protected:
  struct Lease {
    uint64_t number, job;  // clients number their jobs in the seed
    uint32_t position, max;
  };

  // Sends the next token of each of the `count` oldest leases and returns how many those are. `stamp(lease, now)` is
  // called for each of them before.
  template <class Stamp>
  size_t step(size_t count, Outbox& out, const Stamp& stamp) {
    count = std::min(count, leases_.size());
    protocol::Tokens message;
    message.term = link_.term();
    const int64_t now = now_ns();
    for (size_t i = 0; i < count; ++i) {
      Lease& lease = leases_[i];
      stamp(lease, now);
      message.leases.push_back(lease.number);
      message.positions.push_back(lease.position++);
      message.tokens.push_back(100);
      message.finished.push_back(lease.position == lease.max ? 2 : 0);
    }
    std::erase_if(leases_, [](const Lease& lease) { return lease.position == lease.max; });
    out.send(scheduler_, std::move(message));
    return count;
  }

  std::vector<Lease> leases_;  // oldest first

 private:
  Peer scheduler_;
};

struct BenchSchedulerOptions {
  std::string folder;  // below which the journal gets a folder of its own; or the URL of a database
  std::string transport = "tcp";
  bool durable = true;
  size_t open_jobs_max = 5'000'000;
  bool has_keys = false;  // of all connections
  // A journal that outlives the scheduler; nullptr: it has one of its own, if it is durable.
  std::shared_ptr<BenchJournal> journal{};
};

// One key for the scheduler, and one for everybody else.
struct BenchKeys {
  keys::SecretKey scheduler = keys::new_secret_key(), peer = keys::new_secret_key();
  std::shared_ptr<keys::ServerKeys> server() const {
    const std::string rights = " name=bench client=* operator worker=* tokenizer=*";
    return keys::ServerKeys::load(scheduler.text(), "", peer.public_key().text() + rights).value();
  }
  std::shared_ptr<keys::ClientKeys> client() const {
    return std::make_shared<keys::ClientKeys>("", peer, std::vector{scheduler.public_key()});
  }
};

// A scheduler on two loopback ports. A durable one has a journal, which is removed with it unless it was given.
class BenchScheduler {
 public:
  explicit BenchScheduler(const BenchSchedulerOptions& options) : has_keys_(options.has_keys) {
    journal::Recovery recovery;
    recovery.term = 1;
    scheduler::SchedulerOptions settings;
    if (options.durable) {
      place_ = options.journal ? options.journal : std::make_shared<BenchJournal>(options.folder);
      journal_ = journal::Journal::open(place_->options, clock_, recovery);
      if (!journal::is_postgres_url(options.folder)) settings.waiting_folder = options.folder;
    }
    journal::JobStore& store = journal_ ? static_cast<journal::JobStore&>(*journal_) : memory_;
    settings.start = clock_.now();
    settings.wall_ms = [this] { return clock_.wall_ms(); };
    settings.models = {"opt"};
    settings.open_jobs_max = settings.tenant_jobs_max = options.open_jobs_max;
    settings.tenant_share = 1;
    settings.queue_bytes_max = SIZE_MAX / 2;
    settings.known_keys_max = std::max<size_t>(5'000'000, options.open_jobs_max);
    service_ = std::make_unique<scheduler::SchedulerService>(settings, store, std::move(recovery), registry_);
    const auto server = has_keys_ ? keys_.server() : nullptr;
    thread_ = std::make_unique<LoopThread>(*service_, [&](transport::ServiceLoop& loop) {
      if (has_keys_) service_->set_key_of([&loop](const Peer& peer) { return loop.key_of(peer); });
      loop.set_durability({journal_ ? journal_->event_fd() : -1, [&store] { return store.durable(); }});
      loop.bind(any_endpoint(options.transport, "clients"),
                {.message_bytes_max = limits::kClientMessageBytesMax, .name = "clients", .server_keys = server});
      loop.bind(any_endpoint(options.transport, "services"),
                {.name = "services", .server_keys = server, .door = keys::Door::kServices});
    });
    thread_->start();
  }
  std::string endpoint(int port) const { return thread_->loop().bound_endpoint(port); }
  std::unique_ptr<LoopThread> connect(transport::Service& peer, int port) {
    auto thread = std::make_unique<LoopThread>(peer, [&](transport::ServiceLoop& loop) { dial(loop, port); });
    thread->start();
    return thread;
  }
  void dial(transport::ServiceLoop& loop, int port) const {
    transport::PortOptions own;
    if (has_keys_) own.client_keys = keys_.client();
    loop.connect(thread_->loop().bound_endpoint(port), own);
  }

 private:
  const bool has_keys_;
  const BenchKeys keys_;
  SystemClock clock_;
  metrics::Registry registry_;
  journal::MemoryStore memory_;
  std::shared_ptr<BenchJournal> place_;
  std::unique_ptr<journal::Journal> journal_;
  std::unique_ptr<scheduler::SchedulerService> service_;
  std::unique_ptr<LoopThread> thread_;
};

inline protocol::JobSpec bench_spec(int32_t max_new_tokens) {
  protocol::JobSpec spec;
  spec.model = "opt";
  spec.prompt_ids.assign(64, 100);
  spec.max_new_tokens = max_new_tokens;
  spec.ttl_ms = limits::kJobTtlMsMax;
  return spec;
}

inline void write_json(const std::string& path, const std::vector<Figure>& figures) {
  std::ofstream file(path);
  file << "[\n";
  for (size_t i = 0; i < figures.size(); ++i) {
    file << "  {\"name\": \"" << figures[i].name << "\", \"value\": " << figures[i].value << ", \"unit\": \""
         << figures[i].unit << "\"}" << (i + 1 < figures.size() ? "," : "") << "\n";
  }
  file << "]\n";
  if (!file) throw Error("cannot write " + path);
}

}  // namespace optserve::bench
