// The places of waiting jobs in their queue. Under fair sharing a place is an estimate: it counts the tenant's own jobs
// ahead and what the other tenants' shares let start meanwhile. Jobs that come later can only move a job back if they
// have a higher priority or belong to a tenant that had less.
#pragma once

#include "scheduler/scheduler_tables.h"

namespace optserve::scheduler {

struct Place {
  uint32_t position = 0;
  int64_t eta_ms = -1;  // expected wait; -1: not known
};
Place place_of(const Job& job, Instant now);

// Tells followers the places of their jobs.
class Places {
 public:
  explicit Places(SchedulerTables& tables) : tables_(tables) {}
  // Once a second: notes what has changed for about the first jobs of each model.
  void tell(Instant now);

 private:
  SchedulerTables& tables_;
  Instant next_{};
};

}  // namespace optserve::scheduler
