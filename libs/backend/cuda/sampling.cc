#include "kernels/sampling.h"

#include <cstddef>

#include "backend/cuda/cuda_backend.h"
#include "tensor/shape_check.h"

namespace optserve {

using cuda::expect;

// The kernel reads the rows by its own name for them.
static_assert(sizeof(PackedSampleRow) == sizeof(kernels::SamplingRow));
static_assert(offsetof(PackedSampleRow, top_p) == offsetof(kernels::SamplingRow, top_p));
static_assert(offsetof(PackedSampleRow, slot) == offsetof(kernels::SamplingRow, slot));
static_assert(offsetof(PackedSampleRow, allow_eos) == offsetof(kernels::SamplingRow, allow_eos));
static_assert(offsetof(PackedSampleRow, seed) == offsetof(kernels::SamplingRow, seed));
static_assert(kSampleDraw == static_cast<uint32_t>(kernels::kFeatureDraw));
static_assert(kSampleTruncate == static_cast<uint32_t>(kernels::kFeatureTruncate));
static_assert(kSamplePenalties == static_cast<uint32_t>(kernels::kFeaturePenalties));

void CudaBackend::sample(const Tensor& logits, const SampleBatch& batch, Tensor ids, Tensor logprobs) {
  ShapeCheck shapes("sample");
  shapes.bind("row bytes", sizeof(PackedSampleRow));
  shapes.expect_contiguous("rows", batch.rows, DType::kU8, {"n", "row bytes"});
  shapes.expect_contiguous("logits", logits, DType::kF32, {"n", "vocab"});
  shapes.expect("history", batch.history, DType::kI32, {"slots", "max_tokens"});
  shapes.expect("ids", ids, DType::kI32, {"n"});
  shapes.expect("logprobs", logprobs, DType::kF32, {"n"});
  const kernels::SamplingArgs args{
      .logits = logits.data<float>(),
      .vocab = shapes["vocab"],
      .vocab_real = batch.vocab_real,
      .eos = batch.eos,
      .pad = batch.pad,
      .rows = static_cast<const kernels::SamplingRow*>(batch.rows.raw()),
      .num_rows = shapes["n"],
      .history = batch.history.data<int32_t>(),
      .history_stride = batch.history.row_stride(),
      .ids = ids.data<int32_t>(),
      .logprobs = logprobs.data<float>(),
  };
  void* scratch = sampling_scratch_.at_least(*this, kernels::sampling_scratch_bytes(args.num_rows, args.vocab));
  expect(kernels::sample(args, batch.features, scratch, stream_), "sample");
}

void CudaBackend::token_logprobs(const Tensor& logits, const Tensor& targets, int64_t vocab_real, Tensor out) {
  ShapeCheck shapes("token_logprobs");
  shapes.expect_contiguous("logits", logits, DType::kF32, {"n", "vocab"});
  shapes.expect("targets", targets, DType::kI32, {"n"});
  shapes.expect("out", out, DType::kF32, {"n"});
  check(vocab_real >= 0 && vocab_real <= shapes["vocab"], "token_logprobs: more real ids than logits");
  expect(kernels::token_logprobs({.logits = logits.data<float>(),
                                  .vocab = shapes["vocab"],
                                  .vocab_real = vocab_real,
                                  .targets = targets.data<int32_t>(),
                                  .num_rows = shapes["n"],
                                  .out = out.data<float>()},
                                 stream_),
         "token_logprobs");
}

}  // namespace optserve
