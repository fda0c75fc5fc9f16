#include <algorithm>

#include "backend/cpu/cpu_backend.h"
#include "tensor/shape_check.h"

namespace optserve {

void CpuBackend::embed_tokens(const Tensor& ids, const Tensor& table, int64_t first_id, Tensor out) {
  ShapeCheck shapes("embed_tokens");
  shapes.expect("ids", ids, DType::kI32, {"num_tokens"});
  shapes.expect("table", table, DType::kF32, {"local vocab", "embed"});
  shapes.expect("out", out, DType::kF32, {"num_tokens", "embed"});
  const int64_t embed = shapes["embed"];
  for (int64_t token = 0; token < shapes["num_tokens"]; ++token) {
    const int64_t row = ids.data<int32_t>()[token] - first_id;
    const bool ours = row >= 0 && row < shapes["local vocab"];
    if (ours) {
      std::copy_n(table.row<float>(row), embed, out.row<float>(token));
    } else {
      std::fill_n(out.row<float>(token), embed, 0.0f);  // another rank holds it; the sum over ranks fills it in
    }
  }
}

void CpuBackend::add_positions(const Tensor& positions, const Tensor& table, Tensor x) {
  ShapeCheck shapes("add_positions");
  shapes.expect("positions", positions, DType::kI32, {"num_tokens"});
  shapes.expect("table", table, DType::kF32, {"max_positions", "hidden"});
  shapes.expect("x", x, DType::kF32, {"num_tokens", "hidden"});
  for (int64_t token = 0; token < shapes["num_tokens"]; ++token) {
    const int64_t position = positions.data<int32_t>()[token];
    check(position >= 0 && position < shapes["max_positions"], "add_positions: position outside the table");
    const float* source = table.row<float>(position);
    float* destination = x.row<float>(token);
    for (int64_t i = 0; i < shapes["hidden"]; ++i) destination[i] += source[i];
  }
}

}  // namespace optserve
