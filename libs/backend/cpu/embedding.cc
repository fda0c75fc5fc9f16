#include <algorithm>

#include "backend/cpu/cpu_backend.h"

namespace optserve::backend {

namespace {

void take_ids(const StepEntry& entry) {
  const Tensor& history = entry.history;
  for (int64_t row = 0; row < entry.ids.dim(0); ++row) {
    const int64_t slot = entry.slots.data<int32_t>()[row], position = entry.positions.data<int32_t>()[row];
    int32_t& id = entry.ids.data<int32_t>()[row];
    id = -1;
    if (slot < 0) continue;
    check(slot < history.dim(0) && position >= 0 && position < history.dim(1), "embed: outside the history");
    int32_t& known = history.row<int32_t>(slot)[position];
    if (const int32_t fresh = entry.new_ids.data<int32_t>()[row]; fresh >= 0) known = fresh;
    id = known;
  }
}

void update_table(const Tensor& updates, const Tensor& table) {
  const int32_t* update = updates.data<int32_t>();
  for (int64_t i = 0; i < updates.dim(0); ++i, update += 3) {
    if (update[0] < 0) continue;
    check(update[0] < table.dim(0) && update[1] >= 0 && update[1] < table.dim(1), "embed: outside the table");
    table.row<int32_t>(update[0])[update[1]] = update[2];
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

void CpuBackend::do_embed(const StepEntry& entry, const Tensor& table, int64_t first_id, const Tensor& position_table,
                          Tensor out) {
  if (!entry.new_ids.empty()) take_ids(entry);
  if (!entry.table_updates.empty()) update_table(entry.table_updates, entry.block_table);
  const int64_t embed = table.dim(1);
  for (int64_t token = 0; token < out.dim(0); ++token) {
    const int64_t row = entry.ids.data<int32_t>()[token] - first_id;
    const bool ours = row >= 0 && row < table.dim(0);
    if (ours) {
      std::copy_n(table.row<float>(row), embed, out.row<float>(token));
    } else {
      std::fill_n(out.row<float>(token), embed, 0.0f);  // another rank holds it; the sum over ranks fills it in
    }
    if (position_table.empty()) continue;
    add_position(entry.positions.data<int32_t>()[token], position_table, out.row<float>(token));
  }
}

void CpuBackend::do_add_positions(const Tensor& positions, const Tensor& table, Tensor x) {
  for (int64_t token = 0; token < x.dim(0); ++token) {
    add_position(positions.data<int32_t>()[token], table, x.row<float>(token));
  }
}

}  // namespace optserve::backend
