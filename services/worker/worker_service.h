// Rank 0's side of the wire: leases in, tokens out. Pure: the engine is behind EnginePort, the sockets behind Outbox.
//
// The group works for several schedulers at once. A lease is named by its scheduler's port and its number, and fenced
// by that scheduler's term; what happens to one scheduler touches its own leases only. Each is told once a second how
// many leases the group takes from it (transport/capacity_split.h).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "transport/capacity_split.h"
#include "transport/scheduler_links.h"
#include "transport/service.h"
#include "worker/engine_port.h"
#include "worker/metrics.h"

namespace optserve::worker {

class WorkerService : public transport::Service {
 public:
  // `registration` says what this group serves: one model. `on_ticked` is called at the end of each tick with whether
  // the worker takes work now, for what is visible from outside the process; may be empty.
  WorkerService(protocol::Register registration, transport::SchedulerLinkOptions link, EnginePort& engine,
                WorkerMetrics& metrics, std::function<void(bool ready)> on_ticked = {});

  void on_message(const transport::Peer& from, protocol::Message message, Instant now, transport::Outbox& out) override;
  void on_undeliverable(const transport::Peer& to, protocol::Message message, bool slow, Instant now,
                        transport::Outbox& out) override;
  void on_connected(transport::PortId port, Instant now, transport::Outbox& out) override {
    links_.on_connected(port, now, out);
  }
  void on_tick(Instant now, transport::Outbox& out) override;
  void begin_drain(Instant now, transport::Outbox& out) override;
  bool is_drained() const override { return links_.has_left(); }

  // What the engine thread posted since the last call.
  void on_engine_events(std::vector<batching::SequenceEvent> events, transport::Outbox& out);

 private:
  // Names a lease: numbers of different schedulers may be equal.
  using LeaseKey = std::pair<transport::PortId, uint64_t>;
  // For the lines of the log about a job whose trace is wanted.
  struct TracedJob {
    std::string job, traceparent;
  };
  struct Job {
    transport::PortId scheduler = 0;
    uint64_t lease = 0;
    int32_t prompt_tokens = 0;
    bool wants_logprobs = false;
    Instant expires = Instant::max();           // afterwards nobody waits for it
    std::shared_ptr<const TracedJob> traced{};  // jobs are copied for each token
  };
  using Jobs = std::unordered_map<batching::SequenceId, Job>;

  void start(transport::PortId scheduler, protocol::DispatchItem item, Instant now, transport::Outbox& out);
  void revoke(transport::PortId scheduler, const protocol::Revoke& revoke);
  void on_engine_event(batching::SequenceEvent item, Jobs::iterator job, protocol::Tokens& tokens,
                       transport::Outbox& out);
  void send_tokens(transport::PortId scheduler, protocol::Tokens& tokens, transport::Outbox& out) const;
  // Forgets a job and cancels its generation; returns the next job.
  Jobs::iterator give_up(Jobs::iterator job);
  // Gives up every job that this scheduler has leased.
  void drop_jobs(transport::PortId scheduler, const char* cause);
  void drop_expired_jobs(Instant now);
  // Once a second: what each scheduler may lease.
  void split_capacity(Instant now);
  void set_loads();
  // Says goodbye to each scheduler whose last job a drain has finished.
  void leave_where_done(transport::Outbox& out);
  void fail(const LeaseKey& lease, ErrorCode code, std::string message, bool transient, transport::Outbox& out) const;
  void append_token(const Job& job, const batching::SequenceEvent& event, protocol::Tokens& tokens) const;
  int32_t held(transport::PortId scheduler) const;

  const protocol::Register registration_;
  EnginePort& engine_;
  WorkerMetrics& metrics_;
  const std::function<void(bool ready)> on_ticked_;
  transport::SchedulerLinks links_;
  transport::CapacitySplit capacity_;
  Instant next_split_{};
  batching::SequenceId next_id_ = 1;
  Jobs jobs_;
  std::map<LeaseKey, batching::SequenceId> by_lease_;
  bool draining_ = false;
};

}  // namespace optserve::worker
