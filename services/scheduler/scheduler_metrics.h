// The scheduler's metrics. No label value comes from a request: models are those that a worker serves or an option
// names, tenants those that have a line in the file of quotas.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "keys/tenant_quotas.h"
#include "metrics/metrics.h"
#include "protocol/message_types.h"

namespace optserve::scheduler {

struct SchedulerMetrics {
  explicit SchedulerMetrics(metrics::Registry& registry);

  // Why a valid submit was refused.
  enum class Busy : uint8_t { kJobs, kTokens, kBytes, kTenant, kJournal, kStorage, kDeadline, kQuota, kRate };

  metrics::Counter accepted, duplicates, conflicts, refused;
  std::array<metrics::Counter, 9> busy;
  std::array<metrics::Counter, 8> ended;  // by JobState
  metrics::Counter leases, leases_lost, retries, stale_tokens, duplicate_tokens;
  metrics::Counter tokenizer_retries, keys_evicted;
  metrics::Counter slow_clients, clients_lost, not_allowed, messages_over_rate;
  std::array<metrics::Counter, 3> services_lost;  // by ServiceKind, less one
  metrics::Gauge encoding, waiting, running, decoding, services_tokenizer, services_worker, services_converter;
  metrics::Gauge clients, known_keys;
  metrics::Gauge queue_tokens, queue_bytes, expected_wait_seconds, oldest_job_seconds, service_silence_seconds;
  struct OfModel {
    metrics::Gauge waiting, running, expected_wait_seconds, tokens_per_second, oldest_job_seconds, queue_tokens;
    metrics::Gauge groups, slots, kv_tokens, kv_reserved_tokens;
    metrics::Counter accepted, tokens, prompt_tokens;
    std::array<metrics::Counter, 8> ended;      // by JobState
    std::array<metrics::Counter, 6> generated;  // by FinishReason
    // The stages of a job: its prompt becomes ids, it waits, the prompt is processed, the output comes token by token,
    // and the last text is decoded.
    metrics::Histogram encode_seconds, queue_seconds, prefill_seconds, decode_seconds, detokenize_seconds;
    metrics::Histogram first_token_seconds, inter_token_seconds, total_seconds;
    metrics::Histogram prompt_size, output_size;
  };
  // Of a model that a worker serves or an option names; the names of requests never come here. Models beyond the first
  // kModelsMax share one set, under the name "other", whose gauges stay 0.
  static constexpr size_t kModelsMax = 100;
  OfModel& of_model(const std::string& name);
  bool is_measured(const OfModel& model) const { return !other_ || &model != &*other_; }

  struct OfTenant {
    metrics::Gauge jobs, tokens;
    metrics::Counter refused;
  };
  // Of a tenant with a quota of its own. All others, and those beyond the first kTenantsMax, share the name "other",
  // whose gauges stay 0. `quotas`: nullptr if there are none.
  static constexpr size_t kTenantsMax = 100;
  OfTenant& of_tenant(const std::string& tenant, const keys::TenantQuotas* quotas);
  std::map<std::string, OfTenant>& tenants() { return tenants_; }

 private:
  OfTenant make_tenant(const std::string& name);
  OfModel make_model(const std::string& name);
  void add_counters(const std::string& name, OfModel& model);
  void add_histograms(const std::string& name, OfModel& model);

  metrics::Registry& registry_;
  std::map<std::string, OfModel> models_;
  std::optional<OfModel> other_;
  std::map<std::string, OfTenant> tenants_;
  OfTenant other_tenants_;
};

}  // namespace optserve::scheduler
