// Rank 0's side of the wire: leases in, tokens out. Pure: the engine is behind EnginePort, the sockets behind Outbox.
#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "transport/scheduler_link.h"
#include "transport/service.h"
#include "worker/engine_port.h"
#include "worker/metrics.h"

namespace optserve::worker {

class WorkerService : public transport::Service {
 public:
  // `registration` says what this group serves: one model.
  WorkerService(protocol::Register registration, transport::SchedulerLinkOptions link, EnginePort& engine,
                WorkerMetrics& metrics);

  void on_message(const transport::Peer& from, protocol::Message message, Instant now, transport::Outbox& out) override;
  void on_undeliverable(const transport::Peer& to, protocol::Message message, bool slow, Instant now,
                        transport::Outbox& out) override;
  void on_tick(Instant now, transport::Outbox& out) override;
  void begin_drain(Instant now, transport::Outbox& out) override;
  bool is_drained() const override { return left_; }

  // What the engine thread posted since the last call.
  void on_engine_events(std::vector<EngineEvent> events, transport::Outbox& out);
  bool is_registered() const { return link_.is_registered(); }
  bool is_draining() const { return draining_; }

 private:
  struct Job {
    uint64_t lease = 0;
    int32_t prompt_tokens = 0;
  };

  void start(protocol::DispatchItem item, transport::Outbox& out);
  void revoke(const protocol::Revoke& revoke);
  // A new scheduler, or a silent one: nothing leased before counts any more.
  void drop_all_jobs(const char* cause);
  // Says goodbye once a drain has finished its last job.
  void leave_if_done(transport::Outbox& out);
  void fail(uint64_t lease, ErrorCode code, std::string message, bool transient, transport::Outbox& out) const;
  void append_token(const Job& job, const batching::SequenceEvent& event, protocol::Tokens& tokens) const;

  const protocol::Register registration_;
  const transport::Peer scheduler_;
  EnginePort& engine_;
  WorkerMetrics& metrics_;
  transport::SchedulerLink link_;
  batching::SequenceId next_id_ = 1;
  std::unordered_map<batching::SequenceId, Job> jobs_;
  std::unordered_map<uint64_t, batching::SequenceId> by_lease_;
  bool draining_ = false;
  bool left_ = false;
};

}  // namespace optserve::worker
