#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "base/limits.h"

namespace optserve::backend {

void CpuBackend::do_sample(const Tensor& logits, const SampleBatch& batch, const SampleOutputs& out) {
  const bool has_rules = (batch.features & sampling::kSampleRules) != 0,
             wants_best = (batch.features & sampling::kSampleLogprobs) != 0;
  const int64_t num_rows = logits.dim(0);
  const auto vocab = static_cast<size_t>(logits.dim(1));
  const sampling::DrawableIds drawable{batch.vocab_real, batch.eos, batch.pad};
  reserve_scratch(batch.vocab_real);
  pool_.run(num_rows, [&](int64_t row, int thread) {
    sampling::PackedSampleRow packed;
    std::memcpy(&packed, batch.rows.row<uint8_t>(row), sizeof packed);
    sampling::SamplerScratch& scratch = *scratch_[static_cast<size_t>(thread)];
    sampling::DrawnToken drawn{};
    sampling::SampleRow full;
    if (packed.slot >= 0) {
      check(packed.slot < batch.history.dim(0) && packed.position < batch.history.dim(1),
            "sample: outside the history");
      const int32_t* history = batch.history.row<int32_t>(packed.slot);
      std::span<const int32_t> rules;
      if (has_rules) rules = {batch.rules.row<int32_t>(packed.slot), limits::kTokenRulesWordsMax};
      full = sampling::unpack(packed, {history, static_cast<size_t>(packed.position)}, rules);
      drawn = sampling::draw_token({logits.row<float>(row), vocab}, full, drawable, scratch);
    }
    out.ids.data<int32_t>()[row] = drawn.token;
    out.logprobs.data<float>()[row] = drawn.logprob;
    if (!wants_best || packed.slot < 0 || packed.logprobs <= 0) return;
    const auto best = static_cast<size_t>(std::min(packed.logprobs, limits::kTopLogprobsMax));
    const std::span<const float> real(logits.row<float>(row), static_cast<size_t>(batch.vocab_real));
    const std::span<TokenId> ids(out.best_ids.row<int32_t>(row), best);
    const std::span<float> logprobs(out.best_logprobs.row<float>(row), best);
    if ((packed.flags & sampling::PackedSampleRow::kBestAllowed) != 0) {
      sampling::best_allowed_tokens(real, full, drawable, ids, logprobs, scratch);
    } else {
      sampling::best_tokens(real, ids, logprobs, scratch);
    }
  });
  // The history is written only now, because rows of drafts read places of it that earlier rows write.
  for (int64_t row = 0; row < num_rows; ++row) {
    sampling::PackedSampleRow packed;
    std::memcpy(&packed, batch.rows.row<uint8_t>(row), sizeof packed);
    if (packed.slot < 0) continue;
    batch.history.row<int32_t>(packed.slot)[packed.position] = std::max(out.ids.data<int32_t>()[row], 0);
  }
}

void CpuBackend::do_token_logprobs(const Tensor& logits, const Tensor& targets, int64_t vocab_real, Tensor out,
                                   const BestIds& best) {
  if (best.count > 0) reserve_scratch(vocab_real);
  pool_.run(targets.dim(0), [&](int64_t row, int thread) {
    const int32_t target = targets.data<int32_t>()[row];
    const std::span<const float> real(logits.row<float>(row), static_cast<size_t>(vocab_real));
    out.data<float>()[row] = target < 0 ? 0.0f : sampling::log_probability(real, target);
    if (target < 0 || best.count == 0) return;
    const auto count = static_cast<size_t>(best.count);
    sampling::best_tokens(real, {best.ids.row<int32_t>(row), count}, {best.logprobs.row<float>(row), count},
                          *scratch_[static_cast<size_t>(thread)]);
  });
}

void CpuBackend::reserve_scratch(int64_t vocab_real) {
  for (auto& scratch : scratch_) {
    if (scratch == nullptr || scratch->vocab() < vocab_real) {
      scratch = std::make_unique<sampling::SamplerScratch>(vocab_real);
    }
  }
}

}  // namespace optserve::backend
