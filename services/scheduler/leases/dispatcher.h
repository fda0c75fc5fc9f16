// Gives waiting jobs to workers with room, and decides what becomes of a job whose attempt was lost.
#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "scheduler/jobs/endings.h"
#include "scheduler/leases/leases.h"
#include "scheduler/queue/preparation.h"

namespace optserve::scheduler {

class Dispatcher {
 public:
  Dispatcher(SchedulerTables& tables, Leases& leases, Endings& endings, Preparation& preparation)
      : tables_(tables), leases_(leases), endings_(endings), preparation_(preparation), random_(tables.options.seed) {}

  // One round, over the queues in which a job may have found a worker.
  void dispatch(Instant now, transport::Outbox& out);

  // The job's lease ended without a result: it is tried again, at once the first time and later after a random pause,
  // or given up. `counts`: the attempt is used up; else the scheduler or its connection was at fault.
  void lose(Job& job, const std::string& why, bool counts, Instant now);
  // The worker violated the protocol: the attempt is lost, and the worker is told to stop.
  void reject(Job& job, const std::string& why, Instant now);
  void undelivered(ServiceEntry& worker, const std::vector<uint64_t>& leases, Instant now);
  void on(ServiceEntry& from, const protocol::LeaseFailed& message, Instant now);

 private:
  // The messages of one round to one worker.
  struct Batch {
    transport::Peer to;
    std::vector<protocol::Dispatch> dispatches;
    std::vector<protocol::ConvertDispatch> conversions;
    size_t tokens = 0;   // in the last dispatch
    uint64_t after = 0;  // journal record that must be durable first
  };
  struct Round {
    std::map<uint64_t, Batch> batches;  // by the worker's serial
    size_t leases = 0;
  };
  void dispatch_queue(ModelQueue& queue, Round& round, Instant now);
  void add(Job& job, Batch& batch, Instant now) const;
  protocol::DispatchItem item_of(Job& job, Instant now) const;

  SchedulerTables& tables_;
  Leases& leases_;
  Endings& endings_;
  Preparation& preparation_;
  std::mt19937_64 random_;
};

}  // namespace optserve::scheduler
