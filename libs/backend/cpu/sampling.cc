#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "base/limits.h"
#include "tensor/shape_check.h"

namespace optserve {

void CpuBackend::sample(const Tensor& logits, const SampleBatch& batch, const SampleOutputs& out) {
  ShapeCheck shapes("sample");
  shapes.bind("row bytes", sizeof(PackedSampleRow));
  shapes.expect_contiguous("rows", batch.rows, DType::kU8, {"n", "row bytes"});
  shapes.expect("logits", logits, DType::kF32, {"n", "vocab"});
  shapes.expect("history", batch.history, DType::kI32, {"slots", "max_tokens"});
  shapes.expect("ids", out.ids, DType::kI32, {"n"});
  shapes.expect("logprobs", out.logprobs, DType::kF32, {"n"});
  const bool has_rules = (batch.features & kSampleRules) != 0, wants_best = (batch.features & kSampleLogprobs) != 0;
  shapes.bind("rule words", limits::kTokenRulesWordsMax);
  shapes.bind("best", limits::kTopLogprobsMax);
  if (has_rules) shapes.expect("rules", batch.rules, DType::kI32, {"slots", "rule words"});
  if (wants_best) {
    shapes.expect("best ids", out.best_ids, DType::kI32, {"n", "best"});
    shapes.expect("best logprobs", out.best_logprobs, DType::kF32, {"n", "best"});
  }
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
    SamplerScratch& scratch = *scratch_[static_cast<size_t>(thread)];
    DrawnToken drawn{};
    SampleRow full;
    if (packed.slot >= 0) {
      check(packed.slot < shapes["slots"] && packed.position < shapes["max_tokens"], "sample: outside the history");
      const int32_t* history = batch.history.row<int32_t>(packed.slot);
      std::span<const int32_t> rules;
      if (has_rules) rules = {batch.rules.row<int32_t>(packed.slot), limits::kTokenRulesWordsMax};
      full = unpack(packed, {history, static_cast<size_t>(packed.position)}, rules);
      drawn = draw_token({logits.row<float>(row), vocab}, full, drawable, scratch);
    }
    out.ids.data<int32_t>()[row] = drawn.token;
    out.logprobs.data<float>()[row] = drawn.logprob;
    if (!wants_best || packed.slot < 0 || packed.logprobs <= 0) return;
    const auto best = static_cast<size_t>(std::min(packed.logprobs, limits::kTopLogprobsMax));
    const std::span<const float> real(logits.row<float>(row), static_cast<size_t>(batch.vocab_real));
    const std::span<TokenId> ids(out.best_ids.row<int32_t>(row), best);
    const std::span<float> logprobs(out.best_logprobs.row<float>(row), best);
    if ((packed.flags & PackedSampleRow::kBestAllowed) != 0) {
      best_allowed_tokens(real, full, drawable, ids, logprobs, scratch);
    } else {
      best_tokens(real, ids, logprobs, scratch);
    }
  });
  // Only now: rows of drafts read places of the history that rows before them write.
  for (int64_t row = 0; row < shapes["n"]; ++row) {
    PackedSampleRow packed;
    std::memcpy(&packed, batch.rows.row<uint8_t>(row), sizeof packed);
    if (packed.slot < 0) continue;
    batch.history.row<int32_t>(packed.slot)[packed.position] = std::max(out.ids.data<int32_t>()[row], 0);
  }
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
