#include "converter/verify/engine_weights.h"

#include <algorithm>

#include "base/check.h"

namespace optserve::converter {

EngineWeights::EngineWeights(const WeightRows& rows, DType dtype)
    : rows_(rows), dtype_(dtype), tensors_(model_spec::opt_tensors(rows.config())) {}

void EngineWeights::read_block(const model_spec::TensorSpec& spec, int rank, int world,
                               std::span<std::byte> out) const {
  check(rank == 0 && world == 1, "EngineWeights: one rank");
  const DType from = rows_.dtype(spec);
  const size_t row_bytes = static_cast<size_t>(spec.cols) * dtype_bytes(dtype_);
  check_eq(out.size(), static_cast<size_t>(spec.rows) * row_bytes, "EngineWeights: bytes of " + spec.name);
  if (from == dtype_) return rows_.read_rows(spec, 0, spec.rows, out);
  WideRows wide(rows_);
  for (int64_t row = 0; row < spec.rows;) {
    const int64_t count = std::min(rows_per_piece(spec), spec.rows - row);
    const std::span<const float> piece = wide.read(spec, row, count);
    convert_from_f32(piece.data(), dtype_, out.data() + static_cast<size_t>(row) * row_bytes, piece.size());
    row += count;
  }
}

void EngineWeights::read_scales(const model_spec::TensorSpec&, int, int, std::span<float>) const {
  check_failed("a source's weights are plain", std::source_location::current());
}

}  // namespace optserve::converter
