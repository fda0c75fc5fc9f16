#include "scheduler/finished_jobs.h"

#include <utility>

namespace optserve::scheduler {

size_t RecentResults::size_of(const protocol::JobResult& result) {
  return sizeof(Entry) + sizeof(protocol::JobResult) + result.text.size() + result.key.size() + result.message.size() +
         result.ids.size() * sizeof(TokenId) + result.prompt_logprobs.size() * sizeof(float);
}

void RecentResults::add(SharedResult result, uint64_t sequence, int64_t expires_wall_ms) {
  const JobId job = result->job;
  bytes_ += size_of(*result);
  if (!entries_.try_emplace(job, Entry{std::move(result), sequence, expires_wall_ms}).second) return;
  oldest_first_.push_back(job);
  while (bytes_ > bytes_max_ && !oldest_first_.empty()) {
    const auto oldest = entries_.find(oldest_first_.front());
    bytes_ -= size_of(*oldest->second.result);
    entries_.erase(oldest);
    oldest_first_.pop_front();
  }
}

const RecentResults::Entry* RecentResults::find(const JobId& job, int64_t now_wall_ms) const {
  const auto found = entries_.find(job);
  return found == entries_.end() || found->second.expires_wall_ms <= now_wall_ms ? nullptr : &found->second;
}

const IdempotencyKeys::Entry* IdempotencyKeys::find(const std::string& tenant, const std::string& key) const {
  const auto found = entries_.find(joined(tenant, key));
  return found == entries_.end() ? nullptr : &found->second;
}

void IdempotencyKeys::add(const std::string& tenant, const std::string& key, Entry entry) {
  entries_.insert_or_assign(joined(tenant, key), std::move(entry));
  while (entries_.size() > keys_max_ && !expiries_.empty()) {
    entries_.erase(expiries_.begin()->second);
    expiries_.erase(expiries_.begin());
  }
}

void IdempotencyKeys::expire_at(const std::string& tenant, const std::string& key, int64_t expires_wall_ms) {
  expiries_.emplace(expires_wall_ms, joined(tenant, key));
}

void IdempotencyKeys::expire(int64_t now_wall_ms) {
  while (!expiries_.empty() && expiries_.begin()->first <= now_wall_ms) {
    entries_.erase(expiries_.begin()->second);
    expiries_.erase(expiries_.begin());
  }
}

}  // namespace optserve::scheduler
