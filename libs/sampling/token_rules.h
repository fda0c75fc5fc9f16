// Rules of one request about single ids and sequences of ids: those sampling parameters that are lists rather than
// numbers.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "base/ids.h"

namespace optserve::sampling {

inline constexpr float kTokenBiasMax = 100;

struct TokenBias {
  static constexpr bool kPositional = true;  // on the wire an array of two
  TokenId id = 0;
  float bias = 0;  // added to the logit; -100..100, at -100 and below the id is not drawn

  template <class F>
  void fields(F&& f) {
    f("id", id), f("bias", bias);
  }
  bool operator==(const TokenBias&) const = default;
};

struct TokenRules {
  std::vector<TokenId> allowed_ids{};             // only these are drawn; empty: all
  std::vector<TokenBias> logit_bias{};            // of two biases for one id, the last one counts
  std::vector<std::vector<TokenId>> bad_words{};  // an id is not drawn where it would complete one
  std::vector<TokenId> stop_ids{};                // end the output; not drawn before min_new_tokens
  std::vector<TokenId> top_p_reset_ids{};         // the decay of top_p starts again after one

  bool empty() const {
    return allowed_ids.empty() && logit_bias.empty() && bad_words.empty() && stop_ids.empty() &&
           top_p_reset_ids.empty();
  }
  template <class F>
  void fields(F&& f) {
    f("allowed_ids", allowed_ids), f("logit_bias", logit_bias), f("bad_word_ids", bad_words), f("stop_ids", stop_ids),
        f("top_p_reset_ids", top_p_reset_ids);
  }
  bool operator==(const TokenRules&) const = default;
};

// Refuses ids outside of [0, vocab) (or only negative ids if `vocab` is 0, which means not known yet), empty bad words,
// biases outside of their range, more than the limits allow, and what does not fit the packed form.
Status validate(const TokenRules& rules, int64_t vocab);

}  // namespace optserve::sampling
