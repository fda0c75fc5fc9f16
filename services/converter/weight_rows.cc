#include "converter/weight_rows.h"

#include <algorithm>

namespace optserve::converter {

int64_t rows_per_piece(const model_spec::TensorSpec& spec) {
  constexpr int64_t kPieceElements = 512 << 10;
  return std::max<int64_t>(1, kPieceElements / spec.cols);
}

std::span<float> WideRows::read(const model_spec::TensorSpec& spec, int64_t row, int64_t count) {
  const DType dtype = rows_.dtype(spec);
  wide_.resize(static_cast<size_t>(count * spec.cols));
  if (dtype == DType::kF32) {
    rows_.read_rows(spec, row, count, std::as_writable_bytes(std::span(wide_)));
    return wide_;
  }
  raw_.resize(wide_.size() * dtype_bytes(dtype));
  rows_.read_rows(spec, row, count, raw_);
  convert_to_f32(raw_.data(), dtype, wide_.data(), wide_.size());
  return wide_;
}

}  // namespace optserve::converter
