#include "scheduler/scheduler_metrics.h"

#include <iterator>
#include <string>
#include <tuple>
#include <vector>

namespace optserve::scheduler {
namespace {

const std::vector<double>& latency_buckets() {
  static const std::vector<double> kBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,  1,
                                               2.5,   5,      10,    25,   50,    100,  250, 500,  1'000};
  return kBuckets;
}

const std::vector<double>& size_buckets() {
  static const std::vector<double> kBuckets = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1'000, 2'000, 5'000};
  return kBuckets;
}

constexpr const char* kOthers = "other";
constexpr const char* kFinishReasons[] = {"none", "end_of_text", "length", "stop", "cancelled", "error"};
static_assert(std::size(kFinishReasons) == std::tuple_size_v<decltype(SchedulerMetrics::OfModel::generated)>);

}  // namespace

SchedulerMetrics::SchedulerMetrics(metrics::Registry& registry) : registry_(registry) {
  const auto counter = [&](const char* name, const char* help, const metrics::Labels& labels = {}) {
    return registry.counter(name, help, labels);
  };
  accepted = counter("optserve_jobs_accepted_total", "Jobs accepted into the queue");
  duplicates = counter("optserve_jobs_duplicate_total", "Submits answered with an earlier job of the same key");
  conflicts = counter("optserve_jobs_conflict_total", "Submits refused because their key names another payload");
  refused = counter("optserve_jobs_refused_total", "Submits refused as invalid");
  const char* const reasons[] = {"jobs",    "tokens",   "bytes", "tenant", "journal",
                                 "storage", "deadline", "quota", "rate"};
  static_assert(std::size(reasons) == std::tuple_size_v<decltype(busy)>);
  for (size_t i = 0; i < busy.size(); ++i) {
    busy[i] =
        counter("optserve_jobs_busy_total", "Submits refused because a bound is reached", {{"reason", reasons[i]}});
  }
  for (uint8_t state = static_cast<uint8_t>(protocol::JobState::kSucceeded);
       state <= static_cast<uint8_t>(protocol::JobState::kDead); ++state) {
    ended[state] = counter("optserve_jobs_ended_total", "Jobs that reached a terminal state",
                           {{"state", std::string(protocol::job_state_name(static_cast<protocol::JobState>(state)))}});
  }
  leases = counter("optserve_leases_total", "Leases given");
  leases_lost = counter("optserve_leases_lost_total", "Leases that ended without a result");
  retries = counter("optserve_job_retries_total", "Attempts that were lost and are made again");
  stale_tokens = counter("optserve_stale_results_total", "Entries from workers for leases that they do not hold");
  duplicate_tokens = counter("optserve_duplicate_tokens_total", "Tokens at positions that were known");
  tokenizer_retries = counter("optserve_tokenizer_retries_total", "Questions to tokenizers that were asked again");
  keys_evicted = counter("optserve_keys_evicted_total", "Idempotency keys forgotten before their time");
  not_allowed = counter("optserve_not_allowed_requests_total", "Messages that their sender's key may not send");
  messages_over_rate = counter("optserve_messages_over_rate_total",
                               "Messages refused because their tenant has sent its messages-per-minute");
  slow_clients = counter("optserve_slow_client_messages_total", "Messages that a client did not take in time");
  const char* const kinds[] = {"tokenizer", "worker", "converter"};
  static_assert(std::size(kinds) == std::tuple_size_v<decltype(services_lost)>);
  for (size_t i = 0; i < services_lost.size(); ++i) {
    services_lost[i] = counter("optserve_services_lost_total", "Registered services that went without a goodbye",
                               {{"service", kinds[i]}});
  }
  clients_lost = counter("optserve_clients_lost_total", "Connections of clients that ended while they followed jobs");
  const auto stage = [&](const char* name) {
    return registry.gauge("optserve_jobs", "Open jobs by stage", {{"stage", name}});
  };
  encoding = stage("encoding"), waiting = stage("waiting"), running = stage("running"), decoding = stage("decoding");
  const auto services = [&](const char* kind) {
    return registry.gauge("optserve_services", "Registered services", {{"service", kind}});
  };
  services_tokenizer = services("tokenizer"), services_worker = services("worker");
  services_converter = services("converter");
  clients = registry.gauge("optserve_streaming_clients", "Connections that follow jobs");
  queue_tokens = registry.gauge("optserve_queue_tokens", "Tokens that waiting jobs of all models will cost");
  queue_bytes = registry.gauge("optserve_queue_bytes", "Memory counted for open jobs");
  expected_wait_seconds = registry.gauge(
      "optserve_expected_wait_seconds",
      "Expected wait of the model whose queue is longest in time; +Inf if jobs wait that no worker takes");
  oldest_job_seconds =
      registry.gauge("optserve_oldest_job_seconds", "Age of the oldest job that waits, of any model or conversion");
  service_silence_seconds =
      registry.gauge("optserve_service_silence_seconds",
                     "Time since the last message of the registered service that is silent longest");
  known_keys = registry.gauge("optserve_known_keys", "Idempotency keys in memory");
  other_tenants_ = make_tenant(kOthers);
}

SchedulerMetrics::OfModel& SchedulerMetrics::of_model(const std::string& name) {
  const auto found = models_.find(name);
  if (found != models_.end()) return found->second;
  if (models_.size() < kModelsMax) return models_.emplace(name, make_model(name)).first->second;
  if (!other_) other_ = make_model(kOthers);
  return *other_;
}

SchedulerMetrics::OfTenant& SchedulerMetrics::of_tenant(const std::string& tenant, const keys::TenantQuotas* quotas) {
  const auto found = tenants_.find(tenant);
  if (found != tenants_.end()) return found->second;
  if (quotas != nullptr && quotas->named().contains(tenant) && tenants_.size() < kTenantsMax) {
    return tenants_.emplace(tenant, make_tenant(tenant)).first->second;
  }
  return other_tenants_;
}

SchedulerMetrics::OfTenant SchedulerMetrics::make_tenant(const std::string& name) {
  const metrics::Labels labels = {{"tenant", name}};
  return {registry_.gauge("optserve_tenant_jobs", "Open jobs of a tenant that has a quota", labels),
          registry_.gauge("optserve_tenant_tokens", "Tokens that the open jobs of such a tenant may cost", labels),
          registry_.counter("optserve_tenant_refused_total", "Jobs and messages of a tenant that its quota refused",
                            labels)};
}

SchedulerMetrics::OfModel SchedulerMetrics::make_model(const std::string& name) {
  const auto jobs = [&](const char* stage) {
    return registry_.gauge("optserve_model_jobs", "Open jobs of a model", {{"model", name}, {"stage", stage}});
  };
  const auto gauge = [&](const char* metric, const char* help) {
    return registry_.gauge(metric, help, {{"model", name}});
  };
  OfModel gauges;
  gauges.waiting = jobs("waiting");
  gauges.running = jobs("running");
  gauges.expected_wait_seconds =
      gauge("optserve_model_expected_wait_seconds",
            "Expected wait of a job of this model that is submitted now; +Inf if jobs wait that no worker takes");
  gauges.tokens_per_second = gauge("optserve_model_tokens_per_second", "Output tokens a second, while there was work");
  gauges.oldest_job_seconds = gauge("optserve_model_oldest_job_seconds", "Age of the oldest job of a model that waits");
  gauges.queue_tokens = gauge("optserve_model_queue_tokens", "Tokens that the waiting jobs of a model will cost");
  gauges.groups = gauge("optserve_model_groups", "Worker groups that take jobs of a model");
  gauges.slots = gauge("optserve_model_slots", "Jobs that these groups can run at a time");
  gauges.kv_tokens = gauge("optserve_model_kv_tokens", "Tokens that the KV caches of these groups hold");
  gauges.kv_reserved_tokens = gauge("optserve_model_kv_reserved_tokens", "Of them, what running jobs may come to need");
  add_counters(name, gauges);
  add_histograms(name, gauges);
  return gauges;
}

void SchedulerMetrics::add_counters(const std::string& name, OfModel& model) {
  const auto counter = [&](const char* metric, const char* help, metrics::Labels labels = {}) {
    labels.emplace_back("model", name);
    return registry_.counter(metric, help, labels);
  };
  model.accepted = counter("optserve_model_jobs_accepted_total", "Jobs of a model that were accepted into the queue");
  model.tokens = counter("optserve_output_tokens_total", "Output tokens received from workers");
  model.prompt_tokens = counter("optserve_prompt_tokens_total", "Prompt tokens of jobs that were queued for a worker");
  for (uint8_t state = static_cast<uint8_t>(protocol::JobState::kSucceeded);
       state <= static_cast<uint8_t>(protocol::JobState::kDead); ++state) {
    model.ended[state] =
        counter("optserve_model_jobs_ended_total", "Jobs of a model that reached a terminal state",
                {{"state", std::string(protocol::job_state_name(static_cast<protocol::JobState>(state)))}});
  }
  for (size_t reason = 1; reason < model.generated.size(); ++reason) {
    model.generated[reason] = counter("optserve_generations_total", "Generations that ended, by what ended their text",
                                      {{"finish_reason", kFinishReasons[reason]}});
  }
}

void SchedulerMetrics::add_histograms(const std::string& name, OfModel& model) {
  const auto seconds = [&](const char* metric, const char* help) {
    return registry_.histogram(metric, help, latency_buckets(), {{"model", name}});
  };
  model.encode_seconds = seconds("optserve_job_encode_seconds", "From acceptance until the prompt's ids are known");
  model.queue_seconds = seconds("optserve_job_queue_seconds", "From the prompt's ids to the first lease");
  model.prefill_seconds = seconds("optserve_job_prefill_seconds", "From the first lease to the first output token");
  model.decode_seconds = seconds("optserve_job_decode_seconds", "From the first output token to the last");
  model.detokenize_seconds =
      seconds("optserve_job_detokenize_seconds", "From the last output token to the terminal state");
  model.first_token_seconds = seconds("optserve_job_first_token_seconds", "From acceptance to the first output token");
  model.inter_token_seconds = seconds("optserve_job_inter_token_seconds", "Between one output token and the next");
  model.total_seconds = seconds("optserve_job_total_seconds", "From acceptance to the terminal state");
  model.prompt_size =
      registry_.histogram("optserve_job_prompt_tokens", "Tokens of a prompt", size_buckets(), {{"model", name}});
  model.output_size =
      registry_.histogram("optserve_job_output_tokens", "Tokens of an output", size_buckets(), {{"model", name}});
}

}  // namespace optserve::scheduler
