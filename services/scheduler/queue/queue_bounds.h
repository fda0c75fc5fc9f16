// How much work the scheduler accepts: it bounds open jobs by their number, by their memory and, for each model, by the
// time that their work will take. It also bounds how much of each a single tenant may hold.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>

#include "scheduler/queue/model_queues.h"
#include "scheduler/tenants/tenant_limits.h"

namespace optserve::scheduler {

class QueueBounds {
 public:
  enum class Bound : uint8_t { kJobs, kTokens, kBytes, kTenant };
  struct Full {
    Bound bound = Bound::kJobs;
    std::string message;
    int64_t retry_after_ms = 0;
  };

  explicit QueueBounds(const SchedulerOptions& options) : options_(options) {}

  // Which bound a new job of `cost` tokens and `bytes` of memory would exceed; nullopt: there is room for it.
  std::optional<Full> check(const protocol::JobSpec& spec, int64_t cost, size_t bytes, const ModelQueue& queue) const;
  void add(Job& job);
  // The job holds more or less memory than before.
  void update(Job& job);
  void remove(Job& job);

  size_t jobs() const { return jobs_; }
  size_t bytes() const { return bytes_; }
  size_t tenants() const { return tenants_.size(); }
  // What a tenant's open jobs hold.
  TenantLoad load_of(const std::string& tenant) const;

  // Memory of a job with all the output that it may get. It is counted from the start, so that the bound holds whatever
  // jobs do later. `prompt_tokens`: 0 while they are not known.
  static size_t bytes_of(const protocol::JobSpec& spec, size_t prompt_tokens);
  // When a refused client should ask again, if `tokens` of work must be done first; within sensible limits.
  static int64_t retry_after_ms(const ModelQueue& queue, double tokens);

 private:
  struct Tenant {
    size_t jobs = 0;
    size_t bytes = 0;
    int64_t tokens = 0;
    int64_t conversions = 0;
  };
  void count(Job& job, size_t bytes);
  bool exceeds_share(double of_tenant, double adds, double used, double bound) const;

  const SchedulerOptions& options_;
  size_t jobs_ = 0;
  size_t bytes_ = 0;
  std::unordered_map<std::string, Tenant> tenants_;  // with open jobs
};

}  // namespace optserve::scheduler
