// From logits to tokens. The chain of libs/sampling/logit_steps.h is the specification: the steps have the same order,
// and the same seed gives the same ids unless a running sum is within rounding error of the drawn number. Nothing sorts
// a whole vocabulary, and the result of a row does not depend on the other rows. Launches on `stream`, allocates
// nothing, can be captured into a graph.
#pragma once

#include <cstddef>

#include "kernels/element.h"
#include "sampling/packed_sample_row.h"

namespace optserve::kernels {

// The row of libs/sampling, under a name that works where kernels::sampling hides that namespace.
using SamplingRow = optserve::sampling::PackedSampleRow;
using optserve::sampling::SampleFeature;
using optserve::sampling::SamplingProfile;

// The packed rules of a slot, the layout of sampling/packed_rules.h: 4 words (number of entries, number of bad
// words, whether only allowed ids may be drawn, number of reset ids), entries in order of ids, reset ids, bad words.
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
  const int32_t* rules = nullptr;  // [slots, rules_stride]; read with kSampleRules only
  int64_t rules_stride = 0;
  // [num_rows, kBestIdsMax]: with kSampleLogprobs, the first `logprobs` columns of each row get its best ids, ranked by
  // the unedited logits or, if the row says so, by the edited ones. A log-probability is that logit minus the logarithm
  // of the sum of exponentials of the unedited logits. Where there are fewer ids or a logit is not finite, the id is -1
  // and the number 0.
  int32_t* best_ids = nullptr;
  float* best_logprobs = nullptr;
};

// `features` are the SampleFeatures that the rows need together; a single row may need fewer. `scratch`:
// sampling_scratch_bytes() for the penalised copies and counts; needs no initial content.
cudaError_t sample(const SamplingArgs& args, uint32_t features, void* scratch, cudaStream_t stream);
size_t sampling_scratch_bytes(int64_t rows_max, int64_t vocab);

// out[i] = log softmax(logits[i])[targets[i]] over the first vocab_real ids. A target of -1 gives 0, and a row with a
// logit that is not finite gives NaN. If `best` is above 0, each row with a target also gets its best ids, equal ones
// in order of id, and their log softmax, which for the target is the same number as in `out`.
struct LogprobArgs {
  const float* logits = nullptr;  // [num_rows, vocab]
  int64_t vocab = 0;
  int64_t vocab_real = 0;
  const int32_t* targets = nullptr;  // [num_rows]
  int64_t num_rows = 0;
  float* out = nullptr;  // [num_rows]
  int32_t best = 0;      // at most kBestIdsMax
  // [num_rows, kBestIdsMax], the first `best` columns; -1 with 0 where there are fewer ids or a logit is not finite.
  int32_t* best_ids = nullptr;
  float* best_logprobs = nullptr;
};
cudaError_t token_logprobs(const LogprobArgs& args, cudaStream_t stream);

}  // namespace optserve::kernels
