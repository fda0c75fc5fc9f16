#include "converter/transform/padded_rows.h"

#include <algorithm>

#include "base/check.h"

namespace optserve::converter {

PaddedRows::PaddedRows(const WeightRows& source, const model_spec::OptConfig& padded)
    : source_(source), config_(padded) {
  check_eq(source.config().vocab, padded.vocab_stored(), "PaddedRows: rows of the source's table");
}

void PaddedRows::read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count,
                           std::span<std::byte> out) const {
  const bool is_table = spec.name == "embed_tokens.weight" || spec.name == "output_projection.weight";
  const int64_t stored = is_table ? std::clamp<int64_t>(config_.vocab_stored() - row, 0, count) : count;
  const size_t bytes = out.size() / static_cast<size_t>(count) * static_cast<size_t>(stored);
  model_spec::TensorSpec own = spec;
  if (is_table) own.rows = config_.vocab_stored();
  if (stored > 0) source_.read_rows(own, row, stored, out.first(bytes));
  std::ranges::fill(out.subspan(bytes), std::byte{0});
}

}  // namespace optserve::converter
