// The metrics of a worker's rank 0.
#pragma once

#include <string>
#include <vector>

#include "batching/planner.h"
#include "engine/engine.h"
#include "metrics/health.h"
#include "metrics/metrics.h"

namespace optserve::worker {

// How much one engine step does.
struct StepShape {
  int64_t tokens = 0;
  int64_t sequences = 0;
  bool has_prompt = false;  // it processes tokens that were not drawn by a step before
};
StepShape shape_of(const batching::StepPlan& plan);

// How a rank loads its model: the phase "open" (device, group, checksums), "weights" and "warm_up".
class LoadMetrics {
 public:
  LoadMetrics(metrics::Registry& registry, metrics::Health& health);
  void on_progress(uint64_t done, uint64_t total);  // bytes of weights
  // The phase that began with the end of the one before is over.
  void end_phase(const std::string& phase);

 private:
  metrics::Registry& registry_;
  metrics::Health& health_;
  metrics::Gauge bytes_, loaded_bytes_;
  Instant phase_began_;
  bool has_weights_begun_ = false;
};

struct WorkerMetrics {
  // Of one scheduler, by its place on the command line.
  struct OfScheduler {
    metrics::Gauge registered, held, capacity;
  };

  explicit WorkerMetrics(metrics::Registry& registry, size_t schedulers = 1);
  void update(const batching::PlannerStats& stats) const;
  void update_device(const engine::Engine::DeviceTime& time) const;
  // Of a finished step: what it processed, and the time from its start, or from the end of the step before.
  void observe_step(const StepShape& shape, Duration time) const;

  metrics::Counter tokens, leases, leases_failed, leases_dropped, leases_expired;
  metrics::Counter preemptions, steps, prefill_tokens, decode_tokens, shared_tokens, drafted_tokens, accepted_tokens;
  metrics::Counter device_busy, device_idle, prompt_tokens;
  metrics::Histogram prefill_step_seconds, decode_step_seconds, step_tokens, step_sequences;
  metrics::Gauge running, waiting, kv_blocks_used, kv_blocks, kv_usage;
  std::vector<OfScheduler> of_scheduler;
};

}  // namespace optserve::worker
