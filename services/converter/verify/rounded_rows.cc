#include "converter/verify/rounded_rows.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "quant/quantise.h"

namespace optserve::converter {

void RoundedRows::read_rows(const model_spec::TensorSpec& spec, int64_t row, int64_t count,
                            std::span<std::byte> out) const {
  std::vector<float> wide(static_cast<size_t>(count * spec.cols));
  check_eq(out.size(), wide.size() * sizeof(float), "RoundedRows: bytes of " + spec.name);
  StoredRows stored(rows_, plan_);
  const StoredRows::Piece piece = stored.read(spec, row, count, false);
  const quant::QuantFormat format = checkpoint::format_of(spec, plan_);
  if (is_plain(format)) {
    convert_to_f32(piece.values.data(), plan_.dtype, wide.data(), wide.size());
  } else {
    quant::dequantise_rows(format, piece.values, piece.scales, spec.cols, wide);
  }
  std::ranges::copy(std::as_bytes(std::span(wide)), out.begin());
}

}  // namespace optserve::converter
