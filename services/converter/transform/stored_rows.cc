#include "converter/transform/stored_rows.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "quant/quantise.h"

namespace optserve::converter {
namespace {

using model_spec::TensorSpec;

// How many elements of type `Bits` have all bits of `exponent`: those that are NaN or infinite.
template <class Bits>
uint64_t count_full_exponents(std::span<const std::byte> bytes, Bits exponent) {
  uint64_t count = 0;
  for (size_t at = 0; at < bytes.size(); at += sizeof(Bits)) {
    Bits bits;
    std::memcpy(&bits, bytes.data() + at, sizeof bits);
    count += (bits & exponent) == exponent;
  }
  return count;
}

uint64_t nonfinite_elements(std::span<const std::byte> bytes, DType dtype) {
  if (dtype == DType::kF32) return count_full_exponents<uint32_t>(bytes, 0x7f800000u);
  return count_full_exponents<uint16_t>(bytes, dtype == DType::kF16 ? 0x7c00 : 0x7f80);
}

}  // namespace

void round_elements(const std::byte* in, DType from, std::byte* out, DType to, size_t count) {
  if (from == DType::kF32) return convert_from_f32(reinterpret_cast<const float*>(in), to, out, count);
  if (to == DType::kF32) return convert_to_f32(in, from, reinterpret_cast<float*>(out), count);
  std::array<float, 4096> wide;  // stays in the first cache between the two passes
  for (size_t at = 0; at < count; at += wide.size()) {
    const size_t length = std::min(wide.size(), count - at);
    convert_to_f32(in + at * dtype_bytes(from), from, wide.data(), length);
    convert_from_f32(wide.data(), to, out + at * dtype_bytes(to), length);
  }
}

StoredRows::Piece StoredRows::read(const TensorSpec& spec, int64_t row, int64_t count, bool count_nonfinite) {
  const DType from = rows_.dtype(spec);
  const bool is_quantised = !is_plain(checkpoint::format_of(spec, plan_));
  const auto elements = static_cast<size_t>(count * spec.cols);
  const bool is_as_stored = !is_quantised && from == plan_.dtype;
  std::vector<std::byte>& read = is_as_stored ? values_ : raw_;
  read.resize(elements * dtype_bytes(from));
  rows_.read_rows(spec, row, count, read);
  if (is_quantised) {
    const uint64_t nonfinite = quantise(spec, from, count);
    return {values_, scales_, nonfinite};
  }
  if (!is_as_stored) {
    values_.resize(elements * dtype_bytes(plan_.dtype));
    round_elements(raw_.data(), from, values_.data(), plan_.dtype, elements);
  }
  return {values_, {}, count_nonfinite ? nonfinite_elements(values_, plan_.dtype) : 0};
}

// raw_ to values_ and scales_, a row at a time: it stays in the cache between the passes.
uint64_t StoredRows::quantise(const TensorSpec& spec, DType from, int64_t count) {
  const quant::Quantisation& how = *plan_.quantisation;
  const auto rows = static_cast<size_t>(count), cols = static_cast<size_t>(spec.cols);
  const size_t raw_bytes = cols * dtype_bytes(from);
  const size_t row_bytes =
      static_cast<size_t>(quant::elements_per_row(how.format, spec.cols)) * dtype_bytes(info(how.format).storage);
  const auto row_scales = static_cast<size_t>(quant::scales_per_row(how.format, spec.cols));
  values_.resize(rows * row_bytes);
  scales_.resize(rows * row_scales);
  rounded_.resize(cols * dtype_bytes(plan_.dtype));
  wide_.resize(cols);
  uint64_t nonfinite = 0;
  for (size_t i = 0; i < rows; ++i) {
    const std::byte* raw = raw_.data() + i * raw_bytes;
    if (from != plan_.dtype) round_elements(raw, from, rounded_.data(), plan_.dtype, cols);
    const std::span<const std::byte> rounded(from == plan_.dtype ? raw : rounded_.data(), rounded_.size());
    const uint64_t nonfinite_in_row = nonfinite_elements(rounded, plan_.dtype);
    nonfinite += nonfinite_in_row;
    convert_to_f32(rounded.data(), plan_.dtype, wide_.data(), cols);
    if (nonfinite_in_row > 0) std::ranges::fill(wide_, 0.0f);
    quant::quantise_rows(how, wide_, spec.cols, std::span(values_).subspan(i * row_bytes, row_bytes),
                         std::span(scales_).subspan(i * row_scales, row_scales));
  }
  return nonfinite;
}

}  // namespace optserve::converter
