#include <algorithm>

#include "backend/cpu/cpu_backend.h"
#include "tensor/shape_check.h"

namespace optserve {

void CpuBackend::take_ids(const Tensor& new_ids, const Tensor& slots, const Tensor& positions, Tensor history,
                          Tensor ids) {
  ShapeCheck shapes("take_ids");
  shapes.expect("new_ids", new_ids, DType::kI32, {"num_tokens"});
  shapes.expect("slots", slots, DType::kI32, {"num_tokens"});
  shapes.expect("positions", positions, DType::kI32, {"num_tokens"});
  shapes.expect("history", history, DType::kI32, {"slots", "max_tokens"});
  shapes.expect("ids", ids, DType::kI32, {"num_tokens"});
  for (int64_t row = 0; row < shapes["num_tokens"]; ++row) {
    const int64_t slot = slots.data<int32_t>()[row], position = positions.data<int32_t>()[row];
    int32_t& id = ids.data<int32_t>()[row];
    id = -1;
    if (slot < 0) continue;
    check(slot < shapes["slots"] && position >= 0 && position < shapes["max_tokens"], "take_ids: outside the history");
    int32_t& known = history.row<int32_t>(slot)[position];
    if (const int32_t fresh = new_ids.data<int32_t>()[row]; fresh >= 0) known = fresh;
    id = known;
  }
}

void CpuBackend::update_table(const Tensor& updates, Tensor table) {
  ShapeCheck shapes("update_table");
  shapes.bind("3", 3);
  shapes.expect_contiguous("updates", updates, DType::kI32, {"n", "3"});
  shapes.expect("table", table, DType::kI32, {"rows", "columns"});
  const int32_t* update = updates.data<int32_t>();
  for (int64_t i = 0; i < shapes["n"]; ++i, update += 3) {
    if (update[0] < 0) continue;
    check(update[0] < shapes["rows"] && update[1] >= 0 && update[1] < shapes["columns"], "update_table: outside");
    table.row<int32_t>(update[0])[update[1]] = update[2];
  }
}

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
    if (position == -1) continue;
    check(position >= 0 && position < shapes["max_positions"], "add_positions: position outside the table");
    const float* source = table.row<float>(position);
    float* destination = x.row<float>(token);
    for (int64_t i = 0; i < shapes["hidden"]; ++i) destination[i] += source[i];
  }
}

}  // namespace optserve
