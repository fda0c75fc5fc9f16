#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "tensor/shape_check.h"

namespace optserve {

void CpuBackend::sample(const Tensor& logits, const SampleBatch& batch, Tensor ids, Tensor logprobs) {
  ShapeCheck shapes("sample");
  shapes.bind("row bytes", sizeof(PackedSampleRow));
  shapes.expect_contiguous("rows", batch.rows, DType::kU8, {"n", "row bytes"});
  shapes.expect("logits", logits, DType::kF32, {"n", "vocab"});
  shapes.expect("history", batch.history, DType::kI32, {"slots", "max_tokens"});
  shapes.expect("ids", ids, DType::kI32, {"n"});
  shapes.expect("logprobs", logprobs, DType::kF32, {"n"});
  const auto vocab = static_cast<size_t>(shapes["vocab"]);
  const DrawableIds drawable{batch.vocab_real, batch.eos, batch.pad};
  for (auto& scratch : scratch_) {
    if (scratch == nullptr || scratch->vocab() < batch.vocab_real) {
      scratch = std::make_unique<SamplerScratch>(batch.vocab_real);
    }
  }
  pool_.run(shapes["n"], [&](int64_t row, int thread) {
    PackedSampleRow packed;
    std::memcpy(&packed, batch.rows.row<uint8_t>(row), sizeof packed);
    DrawnToken drawn{};
    if (packed.slot >= 0) {
      check(packed.slot < shapes["slots"] && packed.position < shapes["max_tokens"], "sample: outside the history");
      int32_t* history = batch.history.row<int32_t>(packed.slot);
      const SampleRow full = unpack(packed, {history, static_cast<size_t>(packed.position)});
      drawn = draw_token({logits.row<float>(row), vocab}, full, drawable, *scratch_[static_cast<size_t>(thread)]);
      history[packed.position] = std::max(drawn.token, 0);
    }
    ids.data<int32_t>()[row] = drawn.token;
    logprobs.data<float>()[row] = drawn.logprob;
  });
}

void CpuBackend::token_logprobs(const Tensor& logits, const Tensor& targets, int64_t vocab_real, Tensor out) {
  ShapeCheck shapes("token_logprobs");
  shapes.expect("logits", logits, DType::kF32, {"n", "vocab"});
  shapes.expect("targets", targets, DType::kI32, {"n"});
  shapes.expect("out", out, DType::kF32, {"n"});
  check(vocab_real >= 0 && vocab_real <= shapes["vocab"], "token_logprobs: more real ids than logits");
  pool_.run(shapes["n"], [&](int64_t row, int) {
    const int32_t target = targets.data<int32_t>()[row];
    out.data<float>()[row] =
        target < 0 ? 0.0f : log_probability({logits.row<float>(row), static_cast<size_t>(vocab_real)}, target);
  });
}

}  // namespace optserve
