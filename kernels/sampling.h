// From logits to tokens. The chain of libs/sampling/logit_steps.h is the specification: same order of steps, same ids
// for the same seed but where a running sum lands within rounding of the drawn number. No sort of a whole vocabulary;
// the result of a row does not depend on the other rows. Launches on `stream`, allocates nothing, can be captured into
// a graph.
#pragma once

#include <cstddef>

#include "kernels/element.h"

namespace optserve::kernels {

// One row that draws a token; the same bytes as optserve::PackedSampleRow.
struct SamplingRow {
  float temperature;  // 0: greedy
  int32_t top_k;      // 0: all; 1: greedy
  float top_p;        // 1: all
  float min_p;        // 0: all
  float typical_p;    // 1: all
  float top_p_decay;  // 1: none
  float top_p_min;
  int32_t top_p_decay_after;
  float repetition_penalty;  // 1: none
  float presence_penalty;    // 0: none, as for the three below
  float frequency_penalty;
  float prompt_presence_penalty;
  float prompt_frequency_penalty;
  int32_t slot;           // row of the history and of the rules; -1: padding, nothing is drawn or stored
  int32_t position;       // tokens known so far: index of the token to draw; below 2^16
  int32_t prompt_tokens;  // so many of the known tokens are prompt
  uint32_t flags;         // SamplingRowFlag
  int32_t profile;        // SamplingRowProfile
  int32_t logprobs;       // of how many best ids; 0 or below: none
  int32_t reserved;
  uint64_t seed;
};
static_assert(sizeof(SamplingRow) == 88);

// kRowBestAllowed: the best ids are those of what may be drawn, after edits.
enum SamplingRowFlag : uint32_t { kRowAllowEnd = 1, kRowHasRules = 2, kRowBestAllowed = 4 };
enum SamplingRowProfile : int32_t { kProfileDefault = 0, kProfileFasterTransformer = 1, kProfileMetaseq = 2 };

// The packed rules of a slot, the layout of sampling/token_rules.h: four words (number of entries, number of bad words,
// whether only allowed ids may be drawn, number of reset ids), entries in order of ids, reset ids, bad words.
enum SamplingRule : int32_t { kAllowedId = 1, kBannedId = 2, kStopId = 4 };
constexpr int kRulesHeader = 4, kRulesEntry = 3;

constexpr int kBestIdsMax = 20;  // columns of best_ids and best_logprobs

struct SamplingArgs {
  const float* logits = nullptr;  // [num_rows, vocab], not changed
  int64_t vocab = 0;              // stride of the rows
  int64_t vocab_real = 0;         // ids at or above are never drawn
  int32_t eos = 2, pad = 1;
  const SamplingRow* rows = nullptr;  // [num_rows] on the device
  int64_t num_rows = 0;
  int32_t* history = nullptr;  // [slots, history_stride]: known ids of each slot; gets the drawn id at `position`
  int64_t history_stride = 0;
  int32_t* ids = nullptr;     // [num_rows]: -1 where a real logit is NaN or infinite (the history then gets 0)
  float* logprobs = nullptr;  // [num_rows]: of the drawn id, log softmax of the logits as they came, over the real ids
  const int32_t* rules = nullptr;  // [slots, rules_stride]; read with kFeatureRules only
  int64_t rules_stride = 0;
  // [num_rows, kBestIdsMax], the first `logprobs` columns of each row, with kFeatureLogprobs only: the best ids by the
  // logits as they came, or after edits where the row says so, -1 with 0 where there are fewer or a logit is not
  // finite; less the logarithm of the sum of exponentials of the logits as they came.
  int32_t* best_ids = nullptr;
  float* best_logprobs = nullptr;
};

// What the rows of a call need: fewer features, fewer passes. A row may need less than the call offers.
enum SamplingFeature : uint32_t {
  kFeatureDraw = 1,       // some row is not greedy
  kFeatureTruncate = 2,   // some row that is not greedy has top_k, top_p (or its decay), min_p or typical_p
  kFeaturePenalties = 4,  // some row has a penalty, or a profile that divides by the temperature before them
  kFeatureRules = 8,      // some row has rules
  kFeatureTypical = 16,   // some row that is not greedy has typical_p
  kFeatureLogprobs = 32,  // some row wants its best ids
};
// `scratch`: sampling_scratch_bytes() for the penalised copies and counts; needs no initial content.
cudaError_t sample(const SamplingArgs& args, uint32_t features, void* scratch, cudaStream_t stream);
size_t sampling_scratch_bytes(int64_t rows_max, int64_t vocab);

// out[i] = log softmax(logits[i])[targets[i]] over the first vocab_real ids; a target of -1 gives 0; NaN where a logit
// is not finite.
struct LogprobArgs {
  const float* logits = nullptr;  // [num_rows, vocab]
  int64_t vocab = 0;
  int64_t vocab_real = 0;
  const int32_t* targets = nullptr;  // [num_rows]
  int64_t num_rows = 0;
  float* out = nullptr;  // [num_rows]
};
cudaError_t token_logprobs(const LogprobArgs& args, cudaStream_t stream);

}  // namespace optserve::kernels
