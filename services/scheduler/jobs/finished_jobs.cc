#include "scheduler/jobs/finished_jobs.h"

#include <utility>

namespace optserve::scheduler {

size_t RecentResults::size_of(const protocol::JobResult& result) {
  size_t best = (result.best.size() + result.prompt_best.size()) * sizeof(std::vector<sampling::TokenLogprob>);
  for (const auto* places : {&result.best, &result.prompt_best}) {
    for (const auto& tokens : *places) best += tokens.size() * sizeof(sampling::TokenLogprob);
  }
  return best + sizeof(Entry) + sizeof(protocol::JobResult) + result.text.size() + result.prompt.size() +
         result.key.size() + result.message.size() + (result.ids.size() + result.prompt_ids.size()) * sizeof(TokenId) +
         (result.prompt_logprobs.size() + result.logprobs.size()) * sizeof(float);
}

void RecentResults::add(SharedResult result, uint64_t sequence, int64_t expires_at_ms) {
  const JobId job = result->job;
  const size_t bytes = size_of(*result);
  const auto [added, is_new] = entries_.try_emplace(job, Entry{std::move(result), sequence, expires_at_ms});
  if (!is_new) return;
  bytes_ += bytes;
  added->second.age = oldest_first_.insert(oldest_first_.end(), job);
  while (bytes_ > bytes_max_ && !oldest_first_.empty()) forget(JobId(oldest_first_.front()));
}

const RecentResults::Entry* RecentResults::find(const JobId& job, int64_t now_ms) const {
  const auto found = entries_.find(job);
  return found == entries_.end() || found->second.expires_at_ms <= now_ms ? nullptr : &found->second;
}

void RecentResults::forget(const JobId& job) {
  const auto found = entries_.find(job);
  if (found == entries_.end()) return;
  bytes_ -= size_of(*found->second.result);
  oldest_first_.erase(found->second.age);
  entries_.erase(found);
}

const IdempotencyKeys::Entry* IdempotencyKeys::find(const std::string& tenant, const std::string& key) const {
  const auto found = entries_.find(joined(tenant, key));
  return found == entries_.end() ? nullptr : &found->second.entry;
}

size_t IdempotencyKeys::add(const std::string& tenant, const std::string& key, Entry entry) {
  const auto [found, is_new] = entries_.try_emplace(joined(tenant, key));
  Kept& kept = found->second;
  if (!is_new && !kept.expiry && kept.entry.job != entry.job) return 0;
  if (!is_new) release(found->first, kept);
  kept.entry = std::move(entry);
  size_t evicted = 0;
  for (; entries_.size() > keys_max_ && !expiries_.empty(); ++evicted) {
    erase(entries_.find(expiries_.begin()->second));
  }
  return evicted;
}

bool IdempotencyKeys::end(const std::string& tenant, const std::string& key, const JobId& job, protocol::JobState state,
                          int64_t expires_at_ms) {
  const auto found = entries_.find(joined(tenant, key));
  if (found == entries_.end() || found->second.expiry || found->second.entry.job != job) return false;
  found->second.entry.state = state;
  found->second.expiry = expiries_.emplace(expires_at_ms, found->first);
  return true;
}

void IdempotencyKeys::release(const std::string& joined_key, Kept& kept) {
  if (!kept.expiry) return;
  expiries_.erase(*kept.expiry);
  kept.expiry.reset();
  forgotten_.push_back({joined_key.substr(0, joined_key.find('/')), kept.entry.group, kept.entry.state});
}

void IdempotencyKeys::erase(Entries::iterator found) {
  release(found->first, found->second);
  entries_.erase(found);
}

void IdempotencyKeys::forget(const std::string& tenant, const std::string& key, const JobId& job) {
  const auto found = entries_.find(joined(tenant, key));
  if (found != entries_.end() && found->second.expiry && found->second.entry.job == job) erase(found);
}

void IdempotencyKeys::expire(int64_t now_ms) {
  while (!expiries_.empty() && expiries_.begin()->first <= now_ms) {
    erase(entries_.find(expiries_.begin()->second));
  }
}

}  // namespace optserve::scheduler
