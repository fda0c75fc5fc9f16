#include "converter/verify/engine_weights.h"

#include <algorithm>

#include "base/check.h"

namespace optserve::converter {
namespace {

constexpr int64_t kSourcePieceElements = 512 << 10;

}  // namespace

SourceWeights::SourceWeights(const RowSource& rows, tensor::DType dtype)
    : rows_(rows), dtype_(dtype), tensors_(model_spec::opt_tensors(rows.config())) {}

void SourceWeights::read_block(const model_spec::TensorSpec& spec, int rank, int world,
                               std::span<std::byte> out) const {
  check(rank == 0 && world == 1, "SourceWeights: one rank");
  const tensor::DType from = rows_.dtype(spec);
  const size_t row_bytes = static_cast<size_t>(spec.cols) * tensor::dtype_bytes(dtype_);
  check_eq(out.size(), static_cast<size_t>(spec.rows) * row_bytes, "SourceWeights: bytes of " + spec.name);
  if (from == dtype_) return rows_.read_rows(spec, 0, spec.rows, out);
  std::vector<std::byte> raw;
  std::vector<float> wide;
  for (int64_t row = 0; row < spec.rows;) {
    const int64_t count = std::min(std::max<int64_t>(1, kSourcePieceElements / spec.cols), spec.rows - row);
    wide.resize(static_cast<size_t>(count * spec.cols));
    raw.resize(wide.size() * tensor::dtype_bytes(from));
    rows_.read_rows(spec, row, count, raw);
    tensor::convert_to_f32(raw.data(), from, wide.data(), wide.size());
    tensor::convert_from_f32(wide.data(), dtype_, out.data() + static_cast<size_t>(row) * row_bytes, wide.size());
    row += count;
  }
}

void SourceWeights::read_scales(const model_spec::TensorSpec&, int, int, std::span<float>) const {
  check_failed("a source's weights are plain", std::source_location::current());
}

}  // namespace optserve::converter
