#include "worker/metrics.h"

#include <chrono>
#include <utility>

namespace optserve::worker {
namespace {

std::vector<double> powers_of_two(double last) {
  std::vector<double> buckets;
  for (double bucket = 1; bucket <= last; bucket *= 2) buckets.push_back(bucket);
  return buckets;
}

metrics::Histogram step_histogram(metrics::Registry& registry, const char* phase) {
  return registry.histogram(
      "optserve_worker_step_seconds",
      "Time of an engine step; decode: one that only continues texts, prefill: one with tokens of prompts",
      {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30}, {{"phase", phase}});
}

}  // namespace

StepShape shape_of(const batching::StepPlan& plan) {
  StepShape shape{plan.num_tokens(), static_cast<int64_t>(plan.work.size())};
  for (const batching::SlotWork& work : plan.work) shape.has_prompt = shape.has_prompt || !work.tokens.empty();
  return shape;
}

LoadMetrics::LoadMetrics(metrics::Registry& registry, metrics::Health& health)
    : registry_(registry),
      health_(health),
      bytes_(registry.gauge("optserve_worker_load_bytes", "Bytes of weights that this rank loads")),
      loaded_bytes_(registry.gauge("optserve_worker_loaded_bytes", "Bytes of weights that this rank has loaded")),
      phase_began_(health.clock.now()) {}

void LoadMetrics::on_progress(uint64_t done, uint64_t total) {
  if (!std::exchange(has_weights_begun_, true)) end_phase("open");
  bytes_.set(static_cast<double>(total));
  loaded_bytes_.set(static_cast<double>(done));
  health_.bytes_to_load.store(static_cast<int64_t>(total));
  health_.loaded_bytes.store(static_cast<int64_t>(done));
  if (done == total) end_phase("weights");
}

void LoadMetrics::end_phase(const std::string& phase) {
  const Instant now = health_.clock.now();
  registry_.gauge("optserve_worker_load_seconds", "Time that each phase of the last load took", {{"phase", phase}})
      .set(std::chrono::duration<double>(now - phase_began_).count());
  phase_began_ = now;
}

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
      prompt_tokens(r.counter("optserve_worker_prompt_tokens_total",
                              "Prompt tokens processed, or found in the KV cache: those that could have been there")),
      prefill_step_seconds(step_histogram(r, "prefill")),
      decode_step_seconds(step_histogram(r, "decode")),
      step_tokens(r.histogram("optserve_worker_step_tokens", "Rows of an engine step", powers_of_two(8'192))),
      step_sequences(r.histogram("optserve_worker_step_sequences", "Sequences of an engine step", powers_of_two(512))),
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

void WorkerMetrics::observe_step(const StepShape& shape, Duration time) const {
  (shape.has_prompt ? prefill_step_seconds : decode_step_seconds).observe(std::chrono::duration<double>(time).count());
  step_tokens.observe(static_cast<double>(shape.tokens));
  step_sequences.observe(static_cast<double>(shape.sequences));
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
  prompt_tokens.raise_to(static_cast<double>(stats.prefill_tokens + stats.shared_tokens));
  drafted_tokens.raise_to(static_cast<double>(stats.drafted_tokens));
  accepted_tokens.raise_to(static_cast<double>(stats.accepted_tokens));
}

}  // namespace optserve::worker
