#include "sampling/token_rules.h"

#include <cmath>
#include <span>
#include <string>

#include "base/limits.h"
#include "sampling/packed_rules.h"

namespace optserve::sampling {
namespace {

Status check_ids(const char* name, std::span<const TokenId> ids, int64_t vocab) {
  for (const TokenId id : ids) {
    if (id >= 0 && (vocab == 0 || id < vocab)) continue;
    return refuse(ErrorCode::kBadRequest, std::string(name) + ": expected ids from 0 to " +
                                              (vocab == 0 ? "the vocabulary's last" : std::to_string(vocab - 1)) +
                                              ", found " + std::to_string(id));
  }
  return ok_status();
}

Status check_count(const char* name, size_t found, size_t max) {
  if (found <= max) return ok_status();
  return refuse(ErrorCode::kBadRequest,
                std::string(name) + ": expected at most " + std::to_string(max) + ", found " + std::to_string(found));
}

Status check_bias(const TokenBias& entry) {
  if (entry.bias >= -kTokenBiasMax && entry.bias <= kTokenBiasMax) return ok_status();
  return refuse(ErrorCode::kBadRequest,
                "logit_bias: expected -100 <= bias <= 100, found " + std::to_string(entry.bias));
}

Status check_bad_word(const std::vector<TokenId>& word, int64_t vocab) {
  if (word.empty()) return refuse(ErrorCode::kBadRequest, "bad_words: expected at least one id in each, found none");
  return check_ids("bad_words", word, vocab);
}

}  // namespace

Status validate(const TokenRules& rules, int64_t vocab) {
  const size_t words_max = limits::kTokenRulesWordsMax;
  for (const auto& [name, ids, max] : {std::tuple{"allowed_ids", &rules.allowed_ids, words_max},
                                       std::tuple{"stop_ids", &rules.stop_ids, limits::kStopIdsMax},
                                       std::tuple{"top_p_reset_ids", &rules.top_p_reset_ids, limits::kStopIdsMax}}) {
    if (Status s = check_count(name, ids->size(), max); !s.ok()) return s;
    if (Status s = check_ids(name, *ids, vocab); !s.ok()) return s;
  }
  if (Status s = check_count("logit_bias", rules.logit_bias.size(), words_max); !s.ok()) return s;
  for (const TokenBias& entry : rules.logit_bias) {
    if (Status s = check_ids("logit_bias", {&entry.id, 1}, vocab); !s.ok()) return s;
    if (Status s = check_bias(entry); !s.ok()) return s;
  }
  if (Status s = check_count("bad_words", rules.bad_words.size(), words_max); !s.ok()) return s;
  for (const auto& word : rules.bad_words) {
    if (Status s = check_bad_word(word, vocab); !s.ok()) return s;
  }
  return check_count("words of all id lists, biases and bad words together", pack(rules).size(), words_max);
}

}  // namespace optserve::sampling
