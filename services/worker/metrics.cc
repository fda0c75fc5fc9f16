#include "worker/metrics.h"

namespace optserve::worker {

WorkerMetrics::WorkerMetrics(metrics::Registry& r, size_t schedulers)
    : tokens(r.counter("optserve_worker_generated_tokens_total", "Tokens sent to the scheduler")),
      leases(r.counter("optserve_worker_leases_total", "Leases taken")),
      leases_failed(r.counter("optserve_worker_leases_failed_total", "Leases that ended without a result")),
      leases_dropped(
          r.counter("optserve_worker_leases_dropped_total", "Leases given up because their scheduler went away")),
      leases_expired(r.counter("optserve_worker_leases_expired_total", "Leases given up because their time was over")),
      preemptions(r.counter("optserve_worker_preemptions_total", "Sequences put back because KV blocks ran out")),
      steps(r.counter("optserve_worker_engine_steps_total", "Engine steps planned")),
      prefill_tokens(r.counter("optserve_worker_prefill_tokens_total", "Prompt tokens processed")),
      decode_tokens(r.counter("optserve_worker_decode_tokens_total", "Rows processed to generate a token each")),
      shared_tokens(r.counter("optserve_worker_prefix_cached_tokens_total",
                              "Tokens of prompts that were not processed because the KV cache held them")),
      drafted_tokens(r.counter("optserve_worker_drafted_tokens_total",
                               "Tokens guessed by a text that repeated itself or by the draft model")),
      accepted_tokens(r.counter("optserve_worker_accepted_tokens_total", "Guessed tokens that were right")),
      device_busy(r.counter("optserve_worker_device_busy_seconds_total", "Time of this rank's device in steps")),
      device_idle(r.counter("optserve_worker_device_idle_seconds_total",
                            "Time of this rank's device between steps, whether there was work or not")),
      running(r.gauge("optserve_worker_running_sequences", "Sequences that hold a slot")),
      waiting(r.gauge("optserve_worker_waiting_sequences", "Sequences that wait for a slot or KV blocks")),
      kv_blocks_used(r.gauge("optserve_worker_kv_blocks_used", "KV blocks in use")),
      kv_blocks(r.gauge("optserve_worker_kv_blocks", "KV blocks of the pool")),
      kv_usage(r.gauge("optserve_worker_kv_usage_ratio", "Share of the KV blocks that is in use, 0 to 1")) {
  for (size_t i = 0; i < schedulers; ++i) {
    const metrics::Labels labels{{"scheduler", std::to_string(i)}};
    of_scheduler.push_back({r.gauge("optserve_worker_registered", "1 while registered with the scheduler", labels),
                            r.gauge("optserve_worker_leases_held", "Leases held of the scheduler", labels),
                            r.gauge("optserve_worker_capacity", "Leases granted to the scheduler at a time", labels)});
  }
}

void WorkerMetrics::update_device(const engine::Engine::DeviceTime& time) const {
  device_busy.raise_to(time.busy_ms / 1000);
  device_idle.raise_to(time.idle_ms / 1000);
}

void WorkerMetrics::update(const batching::PlannerStats& stats) const {
  running.set(stats.running);
  waiting.set(stats.waiting);
  kv_blocks_used.set(stats.num_blocks - stats.free_blocks);
  kv_blocks.set(stats.num_blocks);
  if (stats.num_blocks > 0) kv_usage.set(1.0 - static_cast<double>(stats.free_blocks) / stats.num_blocks);
  preemptions.raise_to(static_cast<double>(stats.preemptions));
  steps.raise_to(static_cast<double>(stats.planned_steps));
  prefill_tokens.raise_to(static_cast<double>(stats.prefill_tokens));
  decode_tokens.raise_to(static_cast<double>(stats.decode_tokens));
  shared_tokens.raise_to(static_cast<double>(stats.shared_tokens));
  drafted_tokens.raise_to(static_cast<double>(stats.drafted_tokens));
  accepted_tokens.raise_to(static_cast<double>(stats.accepted_tokens));
}

}  // namespace optserve::worker
