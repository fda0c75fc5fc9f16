#include "sampling/packed_rules.h"

#include <map>

namespace optserve::sampling {

std::vector<int32_t> pack(const TokenRules& rules) {
  if (rules.empty()) return {};
  struct Entry {
    float bias = 0;
    int32_t bits = 0;
  };
  std::map<TokenId, Entry> entries;
  for (const TokenId id : rules.allowed_ids) entries[id].bits |= kRuleAllowed;
  for (const TokenId id : rules.stop_ids) entries[id].bits |= kRuleStop;
  for (const TokenBias& bias : rules.logit_bias) {
    Entry& entry = entries[bias.id];
    entry.bias = bias.bias;
    entry.bits = bias.bias <= -kTokenBiasMax ? entry.bits | kRuleBanned : entry.bits & ~kRuleBanned;
  }
  int32_t long_words = 0;
  for (const auto& word : rules.bad_words) {
    if (word.size() == 1) {
      entries[word.front()].bits |= kRuleBanned;
    } else {
      ++long_words;
    }
  }
  std::vector<int32_t> words{static_cast<int32_t>(entries.size()), long_words, rules.allowed_ids.empty() ? 0 : 1,
                             static_cast<int32_t>(rules.top_p_reset_ids.size())};
  for (const auto& [id, entry] : entries) {
    words.insert(words.end(), {id, std::bit_cast<int32_t>(entry.bias), entry.bits});
  }
  words.insert(words.end(), rules.top_p_reset_ids.begin(), rules.top_p_reset_ids.end());
  auto next = static_cast<int32_t>(words.size()) + 2 * long_words;
  for (const auto& word : rules.bad_words) {
    if (word.size() == 1) continue;
    const auto length = static_cast<int32_t>(word.size());
    words.insert(words.end(), {next, length});
    next += length;
  }
  for (const auto& word : rules.bad_words) {
    if (word.size() > 1) words.insert(words.end(), word.begin(), word.end());
  }
  return words;
}

}  // namespace optserve::sampling
