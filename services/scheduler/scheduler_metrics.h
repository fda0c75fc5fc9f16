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
  explicit SchedulerMetrics(Registry& registry);

  // Why a valid submit was refused.
  enum class Busy : uint8_t { kJobs, kTokens, kBytes, kTenant, kJournal, kStorage, kDeadline };

  Counter accepted, duplicates, conflicts, refused;
  std::array<Counter, 7> busy;
  std::array<Counter, 8> ended;  // by JobState
  Counter tokens, prompt_tokens;
  Counter leases, leases_lost, stale_tokens, duplicate_tokens;
  Counter tokenizer_retries, keys_evicted;
  Counter slow_clients;
  Gauge encoding, waiting, running, decoding, services_tokenizer, services_worker, services_converter;
  Gauge clients, known_keys;
  Gauge queue_tokens, queue_bytes, expected_wait_seconds;
  struct OfModel {
    Gauge waiting, running, expected_wait_seconds, tokens_per_second;
  };
  // Of a model that a worker serves or an option names; the names of requests never come here.
  OfModel& of_model(const std::string& name);
  Histogram queue_seconds, first_token_seconds, total_seconds, encode_seconds;

 private:
  Registry& registry_;
  std::map<std::string, OfModel> models_;
};

}  // namespace optserve::scheduler
