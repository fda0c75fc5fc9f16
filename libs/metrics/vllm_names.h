// The names that vLLM gives to what we measure, so that dashboards, scalers and endpoint pickers made for it work.
// docs/monitoring.md shows this table; a test holds them equal.
#pragma once

#include <array>
#include <string_view>

namespace optserve::metrics {

struct VllmName {
  std::string_view ours;
  std::string_view theirs;
  std::string_view stage = {};  // only the metric whose label `stage` has this value
};

// Label `model` becomes `model_name`, `finish_reason` becomes `finished_reason`, `engine` is "0"; `rank` and `stage`
// are left out. The metrics of schedulers and workers together add up to those of a whole vLLM. Gateways show the whole
// as well, for those who ask them directly.
inline constexpr auto kVllmNames = std::to_array<VllmName>({
    {"optserve_worker_running_sequences", "vllm:num_requests_running"},
    {"optserve_worker_waiting_sequences", "vllm:num_requests_waiting"},
    {"optserve_worker_kv_usage_ratio", "vllm:kv_cache_usage_perc"},
    {"optserve_worker_cache_info", "vllm:cache_config_info"},
    {"optserve_worker_preemptions_total", "vllm:num_preemptions_total"},
    {"optserve_worker_prompt_tokens_total", "vllm:prompt_tokens_total"},
    {"optserve_worker_generated_tokens_total", "vllm:generation_tokens_total"},
    {"optserve_worker_prompt_tokens_total", "vllm:prefix_cache_queries_total"},
    {"optserve_worker_prefix_cached_tokens_total", "vllm:prefix_cache_hits_total"},
    {"optserve_worker_step_tokens", "vllm:iteration_tokens_total"},
    {"optserve_model_jobs", "vllm:num_requests_waiting", "waiting"},
    {"optserve_job_first_token_seconds", "vllm:time_to_first_token_seconds"},
    {"optserve_job_inter_token_seconds", "vllm:inter_token_latency_seconds"},
    {"optserve_job_inter_token_seconds", "vllm:time_per_output_token_seconds"},
    {"optserve_job_total_seconds", "vllm:e2e_request_latency_seconds"},
    {"optserve_job_queue_seconds", "vllm:request_queue_time_seconds"},
    {"optserve_job_prefill_seconds", "vllm:request_prefill_time_seconds"},
    {"optserve_job_decode_seconds", "vllm:request_decode_time_seconds"},
    {"optserve_job_prompt_tokens", "vllm:request_prompt_tokens"},
    {"optserve_job_output_tokens", "vllm:request_generation_tokens"},
    {"optserve_generations_total", "vllm:request_success_total"},
    {"optserve_gateway_requests_running", "vllm:num_requests_running"},
    {"optserve_gateway_requests_waiting", "vllm:num_requests_waiting"},
    {"optserve_gateway_slot_usage_ratio", "vllm:kv_cache_usage_perc"},
});

}  // namespace optserve::metrics
