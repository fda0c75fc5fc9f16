#include <algorithm>

#include "backend/cpu/cpu_backend.h"
#include "tensor/shape_check.h"

namespace optserve {

namespace {

void take_ids(ShapeCheck& shapes, const StepEntry& entry) {
  shapes.expect("new_ids", entry.new_ids, DType::kI32, {"num_tokens"});
  shapes.expect("slots", entry.slots, DType::kI32, {"num_tokens"});
  shapes.expect("history", entry.history, DType::kI32, {"slots", "max_tokens"});
  for (int64_t row = 0; row < shapes["num_tokens"]; ++row) {
    const int64_t slot = entry.slots.data<int32_t>()[row], position = entry.positions.data<int32_t>()[row];
    int32_t& id = entry.ids.data<int32_t>()[row];
    id = -1;
    if (slot < 0) continue;
    check(slot < shapes["slots"] && position >= 0 && position < shapes["max_tokens"], "embed: outside the history");
    int32_t& known = entry.history.row<int32_t>(slot)[position];
    if (const int32_t fresh = entry.new_ids.data<int32_t>()[row]; fresh >= 0) known = fresh;
    id = known;
  }
}

void update_table(ShapeCheck& shapes, const StepEntry& entry) {
  shapes.bind("3", 3);
  shapes.expect_contiguous("table_updates", entry.table_updates, DType::kI32, {"updates", "3"});
  shapes.expect("block_table", entry.block_table, DType::kI32, {"rows", "columns"});
  const int32_t* update = entry.table_updates.data<int32_t>();
  for (int64_t i = 0; i < shapes["updates"]; ++i, update += 3) {
    if (update[0] < 0) continue;
    check(update[0] < shapes["rows"] && update[1] >= 0 && update[1] < shapes["columns"], "embed: outside the table");
    entry.block_table.row<int32_t>(update[0])[update[1]] = update[2];
  }
}

// x += table[position].
void add_position(int64_t position, const Tensor& table, float* x) {
  if (position == -1) return;
  check(position >= 0 && position < table.dim(0), "position outside the table");
  const float* source = table.row<float>(position);
  for (int64_t i = 0; i < table.dim(1); ++i) x[i] += source[i];
}

}  // namespace

void CpuBackend::embed(const StepEntry& entry, const Tensor& table, int64_t first_id, const Tensor& position_table,
                       Tensor out) {
  ShapeCheck shapes("embed");
  shapes.expect("ids", entry.ids, DType::kI32, {"num_tokens"});
  shapes.expect("positions", entry.positions, DType::kI32, {"num_tokens"});
  shapes.expect("table", table, DType::kF32, {"local vocab", "embed"});
  shapes.expect("out", out, DType::kF32, {"num_tokens", "embed"});
  if (!position_table.empty()) shapes.expect("position_table", position_table, DType::kF32, {"max_positions", "embed"});
  if (!entry.new_ids.empty()) take_ids(shapes, entry);
  if (!entry.table_updates.empty()) update_table(shapes, entry);
  const int64_t embed = shapes["embed"];
  for (int64_t token = 0; token < shapes["num_tokens"]; ++token) {
    const int64_t row = entry.ids.data<int32_t>()[token] - first_id;
    const bool ours = row >= 0 && row < shapes["local vocab"];
    if (ours) {
      std::copy_n(table.row<float>(row), embed, out.row<float>(token));
    } else {
      std::fill_n(out.row<float>(token), embed, 0.0f);  // another rank holds it; the sum over ranks fills it in
    }
    if (position_table.empty()) continue;
    add_position(entry.positions.data<int32_t>()[token], position_table, out.row<float>(token));
  }
}

void CpuBackend::add_positions(const Tensor& positions, const Tensor& table, Tensor x) {
  ShapeCheck shapes("add_positions");
  shapes.expect("positions", positions, DType::kI32, {"num_tokens"});
  shapes.expect("table", table, DType::kF32, {"max_positions", "hidden"});
  shapes.expect("x", x, DType::kF32, {"num_tokens", "hidden"});
  for (int64_t token = 0; token < shapes["num_tokens"]; ++token) {
    add_position(positions.data<int32_t>()[token], table, x.row<float>(token));
  }
}

}  // namespace optserve
