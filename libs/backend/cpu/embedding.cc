#include <algorithm>

#include "backend/cpu/cpu_backend.h"

namespace optserve {

void CpuBackend::do_take_ids(const Tensor& new_ids, const Tensor& slots, const Tensor& positions, Tensor history,
                             Tensor ids) {
  for (int64_t row = 0; row < ids.dim(0); ++row) {
    const int64_t slot = slots.data<int32_t>()[row], position = positions.data<int32_t>()[row];
    int32_t& id = ids.data<int32_t>()[row];
    id = -1;
    if (slot < 0) continue;
    check(slot < history.dim(0) && position >= 0 && position < history.dim(1), "take_ids: outside the history");
    int32_t& known = history.row<int32_t>(slot)[position];
    if (const int32_t fresh = new_ids.data<int32_t>()[row]; fresh >= 0) known = fresh;
    id = known;
  }
}

void CpuBackend::do_update_table(const Tensor& updates, Tensor table) {
  const int32_t* update = updates.data<int32_t>();
  for (int64_t i = 0; i < updates.dim(0); ++i, update += 3) {
    if (update[0] < 0) continue;
    check(update[0] < table.dim(0) && update[1] >= 0 && update[1] < table.dim(1), "update_table: outside");
    table.row<int32_t>(update[0])[update[1]] = update[2];
  }
}

void CpuBackend::do_embed_tokens(const Tensor& ids, const Tensor& table, int64_t first_id, Tensor out) {
  const int64_t embed = table.dim(1);
  for (int64_t token = 0; token < ids.dim(0); ++token) {
    const int64_t row = ids.data<int32_t>()[token] - first_id;
    const bool ours = row >= 0 && row < table.dim(0);
    if (ours) {
      std::copy_n(table.row<float>(row), embed, out.row<float>(token));
    } else {
      std::fill_n(out.row<float>(token), embed, 0.0f);  // another rank holds it; the sum over ranks fills it in
    }
  }
}

void CpuBackend::do_add_positions(const Tensor& positions, const Tensor& table, Tensor x) {
  for (int64_t token = 0; token < positions.dim(0); ++token) {
    const int64_t position = positions.data<int32_t>()[token];
    if (position == -1) continue;
    check(position >= 0 && position < table.dim(0), "add_positions: position outside the table");
    const float* source = table.row<float>(position);
    float* destination = x.row<float>(token);
    for (int64_t i = 0; i < x.dim(1); ++i) destination[i] += source[i];
  }
}

}  // namespace optserve
