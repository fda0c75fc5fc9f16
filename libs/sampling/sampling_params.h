// What a request may ask of the sampler, as one table: the fields below with names, ranges and meaning in
// for_each_parameter(). Validation, the wire, the command line and docs/parameters.md are made from it.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "base/limits.h"

namespace optserve {

// Whose order and formulas the chain follows where systems differ; sampling/logit_steps.h says how.
enum class SamplingProfile : uint8_t { kDefault = 0, kFasterTransformer = 1, kMetaseq = 2 };

// "default", "fastertransformer", "metaseq".
std::string_view sampling_profile_name(SamplingProfile profile);
Result<SamplingProfile> parse_sampling_profile(std::string_view name);

struct SamplingParams {
  float temperature = 1.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float typical_p = 1.0f;
  float top_p_decay = 1.0f;
  float top_p_min = 0.0f;
  int32_t top_p_decay_after = 0;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float prompt_presence_penalty = 0.0f;
  float prompt_frequency_penalty = 0.0f;
  int32_t min_new_tokens = 0;
  bool ignore_eos = false;
  uint64_t seed = 0;
  int32_t logprobs = -1;
  int32_t beam_width = 1;
  float beam_length_penalty = 1.0f;
  int32_t beam_early_stopping = 0;
  float beam_diversity = 0.0f;
  SamplingProfile profile = SamplingProfile::kDefault;

  bool is_greedy() const { return temperature == 0.0f || top_k == 1; }
  bool is_beam_search() const { return beam_width > 1; }
  bool operator==(const SamplingParams&) const = default;
};

// A line of the table. The default is the field's in SamplingParams{}.
struct ParameterInfo {
  const char* name;  // on the wire; on the command line with dashes
  double min, max;   // of the value; for flags and seeds without meaning
  bool min_excluded;
  const char* help;  // one sentence
};

// Calls f(info, field) for every field of `params`, a SamplingParams or const SamplingParams, in a fixed order.
template <class Params, class F>
void for_each_parameter(Params& params, F&& f) {
  using I = ParameterInfo;
  f(I{"temperature", 0, 2, false, "Logits are divided by it; 0: always the best token"}, params.temperature);
  f(I{"top_k", 0, limits::kVocabularyMax, false, "Draw from the k best tokens; 0: all"}, params.top_k);
  f(I{"top_p", 0, 1, true, "Draw from the fewest best tokens that hold this probability together"}, params.top_p);
  f(I{"min_p", 0, 1, false, "Leave out tokens less likely than this share of the best one's probability"},
    params.min_p);
  f(I{"typical_p", 0, 1, true,
      "Draw from the tokens whose surprise is nearest to the expected one, that hold this probability together"},
    params.typical_p);
  f(I{"top_p_decay", 0, 1, true, "top_p is multiplied by it after each token, until a reset id starts it again"},
    params.top_p_decay);
  f(I{"top_p_min", 0, 1, false, "top_p does not decay below"}, params.top_p_min);
  f(I{"top_p_decay_after", 0, limits::kContextTokensMax, false, "So many tokens after a reset top_p does not decay"},
    params.top_p_decay_after);
  f(I{"repetition_penalty", 0, 10, true,
      "Logits of ids in prompt or output are divided by it where positive, else multiplied; 1: none"},
    params.repetition_penalty);
  f(I{"presence_penalty", -2, 2, false, "Subtracted once from the logit of each generated id"},
    params.presence_penalty);
  f(I{"frequency_penalty", -2, 2, false, "Subtracted for each occurrence of a generated id"}, params.frequency_penalty);
  f(I{"prompt_presence_penalty", -2, 2, false, "Subtracted once from the logit of each id of the prompt"},
    params.prompt_presence_penalty);
  f(I{"prompt_frequency_penalty", -2, 2, false, "Subtracted for each occurrence of an id in the prompt"},
    params.prompt_frequency_penalty);
  f(I{"min_new_tokens", 0, limits::kContextTokensMax, false,
      "Neither the end of the text nor a stop id is drawn before"},
    params.min_new_tokens);
  f(I{"ignore_eos", 0, 1, false, "The end-of-text id does not end the output"}, params.ignore_eos);
  f(I{"seed", 0, 0, false, "The token at a position depends on seed and position alone"}, params.seed);
  f(I{"logprobs", -1, limits::kTopLogprobsMax, false,
      "Report the log-probability of each drawn token and of so many best ones; -1: none"},
    params.logprobs);
  f(I{"beam_width", 1, limits::kBeamWidthMax, false, "Follow so many best continuations at once; 1: none"},
    params.beam_width);
  f(I{"beam_length_penalty", -10, 10, false,
      "A hypothesis counts by its log-probability over its length to this power"},
    params.beam_length_penalty);
  f(I{"beam_early_stopping", 0, 2, false,
      "End when no running beam is better at its length (0), when beam_width have ended (1), when none can become so "
      "(2)"},
    params.beam_early_stopping);
  f(I{"beam_diversity", 0, 100, false, "Each continuation of a beam is ranked by so much less than the one before it"},
    params.beam_diversity);
  f(I{"profile", 0, 2, false,
      "Order and formulas where systems differ: 0 default (as vLLM), 1 FasterTransformer, 2 Metaseq"},
    params.profile);
}

// Refuses a value outside its range, or NaN, naming the field, the range and the value; and what has no meaning beside
// a beam search.
Status validate(const SamplingParams& params);

}  // namespace optserve
