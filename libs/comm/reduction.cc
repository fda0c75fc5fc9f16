#include "comm/reduction.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"

namespace optserve::comm {

namespace {

constexpr int64_t kTile = 512;

const void* element(const void* data, int64_t index, DType dtype) {
  return static_cast<const char*>(data) + index * static_cast<int64_t>(dtype_bytes(dtype));
}

}  // namespace

void sum_in_order(DType dtype, std::span<const void* const> blocks, int64_t count, void* out) {
  check(dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16, "sums are of F32, F16 or BF16");
  std::array<float, kTile> sum, next;
  for (int64_t begin = 0; begin < count; begin += kTile) {
    const auto n = static_cast<size_t>(std::min(kTile, count - begin));
    convert_to_f32(element(blocks[0], begin, dtype), dtype, sum.data(), n);
    for (const void* block : blocks.subspan(1)) {
      convert_to_f32(element(block, begin, dtype), dtype, next.data(), n);
      for (size_t i = 0; i < n; ++i) sum[i] += next[i];
    }
    convert_from_f32(sum.data(), dtype, const_cast<void*>(element(out, begin, dtype)), n);
  }
}

void check_host_block(const Tensor& x) {
  check(x.device().kind == DeviceKind::kCpu, "a communicator of CPUs moves host memory only");
  check(x.ndim() < 2 || x.row_stride() == x.dim(x.ndim() - 1), "collectives need contiguous tensors");
}

}  // namespace optserve::comm
