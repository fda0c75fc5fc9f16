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
  float temperature;         // 0: greedy
  int32_t top_k;             // 0: all; 1: greedy
  float top_p;               // 1: all
  float repetition_penalty;  // 1: none
  float presence_penalty;    // 0: none
  float frequency_penalty;   // 0: none
  int32_t slot;              // row of the history; -1: padding, nothing is drawn or stored
  int32_t position;          // tokens known so far: index of the token to draw
  int32_t prompt_tokens;     // so many of the known tokens are prompt
  int32_t allow_eos;         // 0: the end-of-text id is not drawn
  uint64_t seed;
};
static_assert(sizeof(SamplingRow) == 48);

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
};

// What the rows of a call need: fewer features, fewer passes. A row may need less than the call offers.
enum SamplingFeature : uint32_t {
  kFeatureDraw = 1,       // some row is not greedy
  kFeatureTruncate = 2,   // some row that is not greedy has top_k or top_p
  kFeaturePenalties = 4,  // some row has a penalty
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
