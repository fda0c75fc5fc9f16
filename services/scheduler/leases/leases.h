// Leases: which worker group or converter works on which job, under which number. A lease begins with give() and ends
// with release(), when its work is done or lost, or with revoke(), which also tells the worker to stop.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "scheduler/scheduler_tables.h"

namespace optserve::scheduler {

class Leases {
 public:
  explicit Leases(SchedulerTables& tables) : tables_(tables) {}

  // Moves a waiting job to Stage::kLeased. The attempt is recorded; its message must wait for job.lease().sequence.
  void give(Job& job, ServiceEntry& worker, Instant now);
  // These two do nothing if the job has no lease.
  void release(Job& job);
  void revoke(Job& job);
  // The process ends: attempts that still run are taken back, so that the next start does not count them as crashes.
  void give_back_all();

  // The job that `from` holds under this lease. nullptr: it does not hold it, and is told to stop.
  Job* held_job(ServiceEntry& from, uint64_t term, uint64_t lease);
  // The worker is told to stop, whatever it works on under this number.
  void tell_to_stop(const transport::Peer& worker, uint64_t term, uint64_t lease);
  void send_revokes(transport::Outbox& out);

 private:
  struct Recipient {
    transport::Peer worker;
    uint64_t term = 0;
    auto operator<=>(const Recipient&) const = default;
  };
  struct Revocation {
    uint64_t after = 0;  // journal record of the latest of these leases: must not overtake the Dispatch of it
    std::vector<uint64_t> leases;
  };

  SchedulerTables& tables_;
  uint64_t next_lease_ = 1;
  std::map<Recipient, Revocation> revocations_;  // of this turn
};

}  // namespace optserve::scheduler
