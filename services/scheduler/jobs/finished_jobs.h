// What is remembered of jobs that ended: recent results, and the idempotency keys of all jobs, open or ended, until the
// result expires. Both are bounded; older results are in the journal.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "scheduler/clients/client_streams.h"

namespace optserve::scheduler {

// Results held in memory; the oldest are forgotten first.
class RecentResults {
 public:
  struct Entry {
    SharedResult result;
    uint64_t sequence = 0;  // journal record that must be durable before anyone sees it
    int64_t expires_at_ms = 0;
    std::list<JobId>::iterator age{};
  };
  explicit RecentResults(size_t bytes_max) : bytes_max_(bytes_max) {}
  void add(SharedResult result, uint64_t sequence, int64_t expires_at_ms);
  const Entry* find(const JobId& job, int64_t now_ms) const;
  void forget(const JobId& job);

 private:
  static size_t size_of(const protocol::JobResult& result);
  size_t bytes_max_;
  size_t bytes_ = 0;
  std::unordered_map<JobId, Entry> entries_;
  std::list<JobId> oldest_first_;
};

// The SHA-256 of a payload, or that it is not known, in no more memory than it needs.
class PayloadDigest {
 public:
  // 32 bytes; none: it is not known.
  explicit PayloadDigest(std::string_view sha256) {
    std::copy_n(sha256.begin(), std::min(sha256.size(), bytes_.size()), bytes_.begin());
  }
  PayloadDigest() = default;
  bool is_known() const { return bytes_ != decltype(bytes_){}; }
  bool operator==(const PayloadDigest&) const = default;

 private:
  std::array<char, 32> bytes_{};
};

// (tenant, key) -> job.
class IdempotencyKeys {
 public:
  struct Entry {
    JobId job;
    PayloadDigest payload;
    std::string group{};
    uint64_t sequence = 0;  // of its acceptance in the journal; 0: it was recovered, so the record is on disk
    protocol::JobState state = protocol::JobState::kQueued;  // as long as the job is open
  };
  // An ended job that is not found by its key any longer.
  struct Forgotten {
    std::string tenant, group;
    protocol::JobState state = protocol::JobState::kSucceeded;
  };
  explicit IdempotencyKeys(size_t keys_max) : keys_max_(keys_max) {}
  const Entry* find(const std::string& tenant, const std::string& key) const;
  // The job is accepted or put back. A key that names another open job stays with that job. Returns how many keys of
  // ended jobs had to be forgotten before their time.
  size_t add(const std::string& tenant, const std::string& key, Entry entry);
  // The job ended: its key is forgotten at `expires_at_ms`, or before when there are too many. False: the key does
  // not name this job.
  bool end(const std::string& tenant, const std::string& key, const JobId& job, protocol::JobState state,
           int64_t expires_at_ms);
  void forget(const std::string& tenant, const std::string& key, const JobId& job);
  void expire(int64_t now_ms);
  std::vector<Forgotten> take_forgotten() { return std::exchange(forgotten_, {}); }
  size_t size() const { return entries_.size(); }

 private:
  using Expiries = std::multimap<int64_t, std::string>;
  struct Kept {
    Entry entry;
    std::optional<Expiries::iterator> expiry;  // of an ended job
  };
  using Entries = std::unordered_map<std::string, Kept>;
  // Neither part holds a '/'.
  static std::string joined(const std::string& tenant, const std::string& key) { return tenant + '/' + key; }
  // The entry stops standing for its job.
  void release(const std::string& joined_key, Kept& kept);
  void erase(Entries::iterator found);

  size_t keys_max_;
  Entries entries_;
  Expiries expiries_;
  std::vector<Forgotten> forgotten_;
};

}  // namespace optserve::scheduler
