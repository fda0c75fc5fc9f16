// What the scheduler knows: its options, the journal, and its tables, each of which guards its own rules. The
// collaborators, whose classes act on them, hold a reference to all of it and name each other in their constructors.
#pragma once

#include "journal/job_store.h"
#include "scheduler/access/access.h"
#include "scheduler/clients/client_streams.h"
#include "scheduler/jobs/job_table.h"
#include "scheduler/jobs/known_jobs.h"
#include "scheduler/leases/service_table.h"
#include "scheduler/operators/store_questions.h"
#include "scheduler/output/tokenizer_pool.h"
#include "scheduler/queue/model_queues.h"
#include "scheduler/queue/queue_bounds.h"
#include "scheduler/queue/queue_modes.h"
#include "scheduler/scheduler_metrics.h"
#include "scheduler/scheduler_options.h"
#include "scheduler/tenants/running_jobs.h"
#include "scheduler/tenants/tenant_limits.h"

namespace optserve::scheduler {

struct SchedulerTables {
  SchedulerTables(SchedulerOptions given, journal::JobStore& its_store, uint64_t its_term, metrics::Registry& registry)
      : options(std::move(given)), store(its_store), term(its_term), metrics(registry) {}
  SchedulerTables(const SchedulerTables&) = delete;
  SchedulerTables& operator=(const SchedulerTables&) = delete;

  bool was_restarted() const { return term > 1; }

  const SchedulerOptions options;
  journal::JobStore& store;
  const uint64_t term;
  SchedulerMetrics metrics;
  bool draining = false;  // the process is about to end

  Access access;
  JobTable jobs;
  KnownJobs known{options, metrics};
  ModelQueues queues{options};
  QueueBounds bounds{options};
  TenantLimits tenants{options.tenant_quotas};
  RunningJobs running{tenants, queues};
  QueueModes modes;
  ServiceTable services;
  TokenizerPool tokenizers{options, services};
  ClientStreams streams{options};
  StoreQuestions questions{store, options.store_questions_max};
};

}  // namespace optserve::scheduler
