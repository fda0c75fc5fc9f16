// What is remembered of jobs that ended: recent results, and the idempotency keys of all jobs, open or ended, until the
// result expires. Both are bounded; older results are in the journal.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>

#include "scheduler/client_streams.h"

namespace optserve::scheduler {

// Results held in memory, the oldest leave first.
class RecentResults {
 public:
  struct Entry {
    SharedResult result;
    uint64_t sequence = 0;  // journal record that must be durable before anyone sees it
    int64_t expires_wall_ms = 0;
  };
  explicit RecentResults(size_t bytes_max) : bytes_max_(bytes_max) {}
  void add(SharedResult result, uint64_t sequence, int64_t expires_wall_ms);
  const Entry* find(const JobId& job, int64_t now_wall_ms) const;

 private:
  static size_t size_of(const protocol::JobResult& result);
  size_t bytes_max_;
  size_t bytes_ = 0;
  std::unordered_map<JobId, Entry> entries_;
  std::deque<JobId> oldest_first_;
};

// (tenant, key) -> job.
class IdempotencyKeys {
 public:
  struct Entry {
    JobId job;
    std::string payload_sha256;
    uint64_t sequence = 0;  // of its acceptance in the journal; 0: on disk for long
  };
  explicit IdempotencyKeys(size_t keys_max) : keys_max_(keys_max) {}
  const Entry* find(const std::string& tenant, const std::string& key) const;
  void add(const std::string& tenant, const std::string& key, Entry entry);
  // The key is forgotten at `expires_wall_ms`, or before when there are too many.
  void expire_at(const std::string& tenant, const std::string& key, int64_t expires_wall_ms);
  void expire(int64_t now_wall_ms);
  size_t size() const { return entries_.size(); }

 private:
  static std::string joined(const std::string& tenant, const std::string& key) { return tenant + '/' + key; }
  size_t keys_max_;
  std::unordered_map<std::string, Entry> entries_;
  std::multimap<int64_t, std::string> expiries_;
};

}  // namespace optserve::scheduler
