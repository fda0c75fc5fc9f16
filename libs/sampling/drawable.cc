#include "sampling/drawable.h"

#include <algorithm>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace optserve::sampling {
namespace {

constexpr float kBiasOfBanned = -100;

std::unordered_set<TokenId> hidden_ids(const TokenRules& rules, std::span<const TokenId> history, bool allow_end,
                                       const DrawableIds& ids) {
  std::unordered_set<TokenId> hidden{ids.pad};
  if (!allow_end) {
    hidden.insert(ids.eos);
    hidden.insert(rules.stop_ids.begin(), rules.stop_ids.end());
  }
  std::unordered_map<TokenId, float> biases;
  for (const TokenBias& bias : rules.logit_bias) biases[bias.id] = bias.bias;  // of two for one id, the last one counts
  for (const auto& [id, bias] : biases) {
    if (bias <= kBiasOfBanned) hidden.insert(id);
  }
  for (const std::vector<TokenId>& word : rules.bad_words) {
    const auto begun = std::span(word).first(word.size() - 1);
    if (begun.size() <= history.size() && std::ranges::equal(begun, history.last(begun.size()))) {
      hidden.insert(word.back());
    }
  }
  return hidden;
}

}  // namespace

Status check_drawable(const SamplingParams& params, const TokenRules& rules, std::span<const TokenId> history,
                      int64_t generated, const DrawableIds& ids) {
  if (rules.empty()) return ok_status();
  const bool allow_end = generated >= params.min_new_tokens;
  const auto hidden = hidden_ids(rules, history, allow_end, ids);
  const auto is_real = [&](TokenId id) { return id >= 0 && id < ids.vocab_real; };
  const bool is_any =
      rules.allowed_ids.empty()
          ? std::ranges::count_if(hidden, is_real) < ids.vocab_real
          : std::ranges::any_of(rules.allowed_ids, [&](TokenId id) { return is_real(id) && !hidden.contains(id); });
  if (is_any) return ok_status();
  return refuse(ErrorCode::kBadRequest,
                "the request leaves no token for place " + std::to_string(generated + 1) +
                    " of its output: allowed_ids, logit_bias, bad_words and min_new_tokens together forbid all of them "
                    "(the padding id is never drawn, the end-of-text id and stop_ids not before min_new_tokens)");
}

}  // namespace optserve::sampling
