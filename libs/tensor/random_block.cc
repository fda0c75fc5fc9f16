#include "tensor/random_block.h"

#include "base/check.h"

namespace optserve {

int64_t RandomBlock::rows() const {
  int64_t total = 0;
  for (const Run& run : runs) total += run.rows;
  return total;
}

void fill_random(const RandomBlock& block, std::span<std::byte> out) {
  const size_t row_bytes = static_cast<size_t>(block.cols) * dtype_bytes(block.dtype);
  check_eq(out.size(), static_cast<size_t>(block.rows()) * row_bytes, "bytes of a random block");
  std::vector<float> row(static_cast<size_t>(block.cols));
  std::byte* destination = out.data();
  for (const RandomBlock::Run& run : block.runs) {
    for (int64_t r = run.first_row; r < run.first_row + run.rows; ++r) {
      const uint64_t first = block.key + static_cast<uint64_t>(r * block.whole_cols + block.first_col);
      for (size_t c = 0; c < row.size(); ++c) {
        const auto unit = static_cast<float>(splitmix64(first + c) >> 40) * 0x1p-23f - 1.0f;
        row[c] = block.centre + block.reach * unit;
      }
      convert_from_f32(row.data(), block.dtype, destination, row.size());
      destination += row_bytes;
    }
  }
}

}  // namespace optserve
