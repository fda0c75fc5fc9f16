#include "scheduler/queue/prefix_affinity.h"

namespace optserve::scheduler {

uint64_t PrefixAffinity::hash(const std::vector<TokenId>& prompt) {
  if (prompt.size() < kPrefixTokens) return 0;
  uint64_t value = 0xCBF29CE484222325u;  // FNV-1a over the ids
  for (size_t i = 0; i < kPrefixTokens; ++i) value = (value ^ static_cast<uint32_t>(prompt[i])) * 0x100000001B3u;
  return value == 0 ? 1 : value;
}

void PrefixAffinity::note(uint64_t prefix, uint64_t worker) {
  if (prefix == 0) return;
  if (const auto known = prefixes_.find(prefix); known != prefixes_.end()) {
    workers_[known->second.worker].erase(known->second.place);
    prefixes_.erase(known);
  }
  Recent& recent = workers_[worker];
  recent.push_front(prefix);
  prefixes_[prefix] = {worker, recent.begin()};
  if (recent.size() <= kPrefixesPerWorker) return;
  prefixes_.erase(recent.back());
  recent.pop_back();
}

uint64_t PrefixAffinity::worker_of(uint64_t prefix) const {
  const auto found = prefixes_.find(prefix);
  return found == prefixes_.end() ? 0 : found->second.worker;
}

void PrefixAffinity::forget(uint64_t worker) {
  const auto found = workers_.find(worker);
  if (found == workers_.end()) return;
  for (const uint64_t prefix : found->second) prefixes_.erase(prefix);
  workers_.erase(found);
}

}  // namespace optserve::scheduler
