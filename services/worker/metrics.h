// The metrics of a worker's rank 0.
#pragma once

#include <vector>

#include "batching/planner.h"
#include "engine/engine.h"
#include "metrics/metrics.h"

namespace optserve::worker {

struct WorkerMetrics {
  // Of one scheduler, by its place on the command line.
  struct OfScheduler {
    metrics::Gauge registered, held, capacity;
  };

  explicit WorkerMetrics(metrics::Registry& registry, size_t schedulers = 1);
  void update(const batching::PlannerStats& stats) const;
  void update_device(const engine::Engine::DeviceTime& time) const;

  metrics::Counter tokens, leases, leases_failed, leases_dropped, leases_expired;
  metrics::Counter preemptions, steps, prefill_tokens, decode_tokens, shared_tokens, drafted_tokens, accepted_tokens;
  metrics::Counter device_busy, device_idle;
  metrics::Gauge running, waiting, kv_blocks_used, kv_blocks, kv_usage;
  std::vector<OfScheduler> of_scheduler;
};

}  // namespace optserve::worker
