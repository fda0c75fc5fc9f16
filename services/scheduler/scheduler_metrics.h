// The scheduler's metrics. No label value comes from a request.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "metrics/metrics.h"
#include "protocol/message_types.h"

namespace optserve::scheduler {

struct SchedulerMetrics {
  explicit SchedulerMetrics(metrics::Registry& registry);

  // Why a valid submit was refused.
  enum class Busy : uint8_t { kJobs, kTokens, kBytes, kTenant, kJournal, kStorage, kDeadline };

  metrics::Counter accepted, duplicates, conflicts, refused;
  std::array<metrics::Counter, 7> busy;
  std::array<metrics::Counter, 8> ended;  // by JobState
  metrics::Counter tokens, prompt_tokens;
  metrics::Counter leases, leases_lost, stale_tokens, duplicate_tokens;
  metrics::Counter tokenizer_retries, keys_evicted;
  metrics::Counter slow_clients, not_allowed;
  metrics::Gauge encoding, waiting, running, decoding, services_tokenizer, services_worker, services_converter;
  metrics::Gauge clients, known_keys;
  metrics::Gauge queue_tokens, queue_bytes, expected_wait_seconds;
  struct OfModel {
    metrics::Gauge waiting, running, expected_wait_seconds, tokens_per_second;
  };
  // Of a model that a worker serves or an option names; the names of requests never come here.
  OfModel& of_model(const std::string& name);
  metrics::Histogram queue_seconds, first_token_seconds, total_seconds, encode_seconds;

 private:
  metrics::Registry& registry_;
  std::map<std::string, OfModel> models_;
};

}  // namespace optserve::scheduler
