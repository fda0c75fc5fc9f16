// The metrics of a worker's rank 0.
#pragma once

#include "batching/planner.h"
#include "engine/engine.h"
#include "metrics/metrics.h"

namespace optserve::worker {

struct WorkerMetrics {
  explicit WorkerMetrics(Registry& registry);
  void update(const batching::PlannerStats& stats) const;
  void update_device(const Engine::DeviceTime& time) const;

  Counter tokens, leases, leases_failed, leases_dropped;
  Gauge running, waiting, kv_blocks_used, kv_blocks, preemptions, steps, prefill_tokens, decode_tokens;
  Gauge device_busy, device_idle;
};

}  // namespace optserve::worker
