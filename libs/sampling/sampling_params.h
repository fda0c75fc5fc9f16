// What a request may ask of the sampler, as one table: each field of SamplingParams with its name, range, meaning and
// use. Validation, the wire, the relay between ranks, the command line and docs/parameters.md are made from the table,
// and kernels read the same struct. It is plain data, so that kernels/ can include it.
#pragma once

#include <cstdint>

#include "base/limits.h"

namespace optserve::sampling {

// Which system's order and formulas the chain follows where systems differ; sampling/logit_steps.h has the details.
enum class SamplingProfile : uint8_t { kDefault = 0, kFasterTransformer = 1, kMetaseq = 2 };

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

// What the rows of a sampling call need of the chain. Fewer features mean fewer passes over the logits.
enum SampleFeature : uint32_t {
  kSampleDraw = 1,       // some row is not greedy
  kSampleTruncate = 2,   // some row that is not greedy excludes ids before it draws
  kSamplePenalties = 4,  // some row has a penalty, or a profile that divides by the temperature before them
  kSampleRules = 8,      // some row has rules
  kSampleTypical = 16,   // some row that is not greedy has typical-p
  kSampleLogprobs = 32,  // some row wants its best ids
};

// Whether a parameter may differ from its default in a beam search, which draws nothing.
enum class WithBeams : uint8_t { kRefused, kZero, kAllowed };  // kZero: the default or 0

// A line of the table. The default is the value of the field in SamplingParams{}.
struct ParameterInfo {
  const char* name;  // on the wire; on the command line with dashes
  double min, max;   // of the value; without meaning for flags and seeds
  bool min_excluded;
  const char* help;                            // one sentence
  uint32_t needs = 0;                          // SampleFeatures that any value but the default needs
  WithBeams with_beams = WithBeams::kRefused;  // parameters that do not set this are refused with beams
};

// Calls f(info, &SamplingParams::field) for every field, in a fixed order.
template <class F>
constexpr void for_each_field(F&& f) {
  using I = ParameterInfo;
  using P = SamplingParams;
  using enum WithBeams;
  f(I{"temperature", 0, 2, false, "Logits are divided by it; 0: always the best token", 0, kZero}, &P::temperature);
  f(I{"top_k", 0, limits::kVocabularyMax, false, "Draw from the k best tokens; 0: all", kSampleTruncate}, &P::top_k);
  f(I{"top_p", 0, 1, true, "Draw from the fewest best tokens whose probabilities add up to this", kSampleTruncate},
    &P::top_p);
  f(I{"min_p", 0, 1, false, "Leave out tokens less likely than this share of the best token's probability",
      kSampleTruncate},
    &P::min_p);
  f(I{"typical_p", 0, 1, true, "Draw from the tokens of the most typical surprise whose probabilities add up to this",
      kSampleTruncate | kSampleTypical},
    &P::typical_p);
  f(I{"top_p_decay", 0, 1, true, "top_p is multiplied by it after each token, until a reset id restores it",
      kSampleTruncate},
    &P::top_p_decay);
  f(I{"top_p_min", 0, 1, false, "top_p does not decay below"}, &P::top_p_min);
  f(I{"top_p_decay_after", 0, limits::kContextTokensMax, false,
      "top_p starts to decay this many tokens after the last reset"},
    &P::top_p_decay_after);
  f(I{"repetition_penalty", 0, 10, true,
      "Logits of ids in prompt or output are divided by it where positive and multiplied where negative; 1: none",
      kSamplePenalties, kAllowed},
    &P::repetition_penalty);
  f(I{"presence_penalty", -2, 2, false, "Subtracted once from the logit of each generated id", kSamplePenalties,
      kAllowed},
    &P::presence_penalty);
  f(I{"frequency_penalty", -2, 2, false, "Subtracted for each occurrence of a generated id", kSamplePenalties,
      kAllowed},
    &P::frequency_penalty);
  f(I{"prompt_presence_penalty", -2, 2, false, "Subtracted once from the logit of each id of the prompt",
      kSamplePenalties, kAllowed},
    &P::prompt_presence_penalty);
  f(I{"prompt_frequency_penalty", -2, 2, false, "Subtracted for each occurrence of an id in the prompt",
      kSamplePenalties, kAllowed},
    &P::prompt_frequency_penalty);
  f(I{"min_new_tokens", 0, limits::kContextTokensMax, false,
      "Neither the end of the text nor a stop id is drawn before this many new tokens", 0, kAllowed},
    &P::min_new_tokens);
  f(I{"ignore_eos", 0, 1, false, "The end-of-text id does not end the output", 0, kAllowed}, &P::ignore_eos);
  f(I{"seed", 0, 0, false, "The token at a position depends on seed and position alone", 0, kAllowed}, &P::seed);
  f(I{"logprobs", -1, limits::kTopLogprobsMax, false,
      "Report the log-probability of each drawn token and of this many best ones; -1: none", 0, kZero},
    &P::logprobs);
  f(I{"beam_width", 1, limits::kBeamWidthMax, false,
      "Number of continuations that a beam search follows; 1: no beam search", 0, kAllowed},
    &P::beam_width);
  f(I{"beam_length_penalty", -10, 10, false, "A hypothesis counts by its log-probability over its length to this power",
      0, kAllowed},
    &P::beam_length_penalty);
  f(I{"beam_early_stopping", 0, 2, false,
      "End when no running beam is better at its length (0), when beam_width hypotheses have ended (1), or when no "
      "running beam can become better (2)",
      0, kAllowed},
    &P::beam_early_stopping);
  f(I{"beam_diversity", 0, 100, false, "Each further continuation of the same beam is ranked lower by this much", 0,
      kAllowed},
    &P::beam_diversity);
  f(I{"profile", 0, 2, false,
      "Order and formulas where systems differ: 0 default (as vLLM), 1 FasterTransformer, 2 Metaseq", kSamplePenalties},
    &P::profile);
}

// Calls f(info, field) for every field of `params`, a SamplingParams or const SamplingParams, in the same order.
template <class Params, class F>
constexpr void for_each_parameter(Params& params, F&& f) {
  for_each_field([&](const ParameterInfo& info, auto field) { f(info, params.*field); });
}

}  // namespace optserve::sampling
