#include "kernels/sampling.h"

#include "backend/cuda/cuda_backend.h"
#include "base/limits.h"
#include "sampling/packed_rules.h"

namespace optserve::backend {

using cuda::expect;

static_assert(sampling::kRuleHeaderWords == kernels::kRulesHeader && sampling::kRuleEntryWords == kernels::kRulesEntry);
static_assert(static_cast<int>(sampling::kRuleAllowed) == kernels::kAllowedId &&
              static_cast<int>(sampling::kRuleStop) == kernels::kStopId);
static_assert(static_cast<int>(sampling::kRuleBanned) == kernels::kBannedId);
static_assert(limits::kTopLogprobsMax == kernels::kBestIdsMax);
static_assert(limits::kContextTokensMax < 1 << 16);  // uses of an id are counted in 16 bits

void CudaBackend::do_sample(const Tensor& logits, const SampleBatch& batch, const SampleOutputs& out) {
  const bool has_rules = (batch.features & sampling::kSampleRules) != 0,
             has_best = (batch.features & sampling::kSampleLogprobs) != 0;
  const kernels::SamplingArgs args{
      .logits = logits.data<float>(),
      .vocab = logits.dim(1),
      .vocab_real = batch.vocab_real,
      .eos = batch.eos,
      .pad = batch.pad,
      .rows = static_cast<const sampling::PackedSampleRow*>(batch.rows.raw()),
      .num_rows = logits.dim(0),
      .history = batch.history.data<int32_t>(),
      .history_stride = batch.history.row_stride(),
      .ids = out.ids.data<int32_t>(),
      .logprobs = out.logprobs.data<float>(),
      .rules = has_rules ? batch.rules.data<int32_t>() : nullptr,
      .rules_stride = has_rules ? batch.rules.row_stride() : 0,
      .best_ids = has_best ? out.best_ids.data<int32_t>() : nullptr,
      .best_logprobs = has_best ? out.best_logprobs.data<float>() : nullptr,
  };
  void* scratch = sampling_scratch_.at_least(*this, kernels::sampling_scratch_bytes(args.num_rows, args.vocab));
  expect(kernels::sample(args, batch.features, scratch, stream_), "sample");
}

void CudaBackend::do_token_logprobs(const Tensor& logits, const Tensor& targets, int64_t vocab_real, Tensor out,
                                    const BestIds& best) {
  expect(kernels::token_logprobs({.logits = logits.data<float>(),
                                  .vocab = logits.dim(1),
                                  .vocab_real = vocab_real,
                                  .targets = targets.data<int32_t>(),
                                  .num_rows = logits.dim(0),
                                  .out = out.data<float>(),
                                  .best = best.count,
                                  .best_ids = best.count > 0 ? best.ids.data<int32_t>() : nullptr,
                                  .best_logprobs = best.count > 0 ? best.logprobs.data<float>() : nullptr},
                                 stream_),
         "token_logprobs");
}

}  // namespace optserve::backend
