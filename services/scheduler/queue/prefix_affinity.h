// Which group was recently sent a prompt with the same beginning: it may still hold that beginning in its cache.
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "base/ids.h"

namespace optserve::scheduler {

class PrefixAffinity {
 public:
  static constexpr size_t kPrefixTokens = 64;  // shorter prompts have no affinity
  static constexpr size_t kPrefixesPerWorker = 256;

  // Hash of the first kPrefixTokens ids; 0: the prompt is shorter.
  static uint64_t hash(const std::vector<TokenId>& prompt);

  void note(uint64_t prefix, uint64_t worker);
  // The worker that was last sent this prefix; 0: none is remembered.
  uint64_t worker_of(uint64_t prefix) const;
  void forget(uint64_t worker);
  size_t size() const { return prefixes_.size(); }

 private:
  using Recent = std::list<uint64_t>;  // prefixes, the latest first
  struct Holder {
    uint64_t worker = 0;
    Recent::iterator place;
  };
  std::unordered_map<uint64_t, Holder> prefixes_;
  std::unordered_map<uint64_t, Recent> workers_;
};

}  // namespace optserve::scheduler
