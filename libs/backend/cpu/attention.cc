#include <algorithm>

#include "backend/cpu/cpu_backend.h"
#include "base/limits.h"

namespace optserve {
namespace {

constexpr int64_t kContextMax = static_cast<int64_t>(limits::kContextTokensMax);

struct Sizes {
  int64_t num_tokens, num_blocks, block_tokens, heads, head_dim;
  int64_t width() const { return heads * head_dim; }
  int64_t block_stride() const { return heads * block_tokens * head_dim; }
};

Sizes sizes_of(const Tensor& qkv, const KvLayer& layer) {
  return {qkv.dim(0), layer.keys.dim(0), layer.keys.dim(2), layer.keys.dim(1), layer.keys.dim(3)};
}

void append(const Sizes& sizes, const Tensor& qkv, const Tensor& kv_slots, const KvLayer& layer) {
  for (int64_t row = 0; row < sizes.num_tokens; ++row) {
    const int64_t slot = kv_slots.data<int32_t>()[row];
    check(slot >= 0 && slot < sizes.num_blocks * sizes.block_tokens, "attention: slot outside the cache");
    const int64_t cell = slot / sizes.block_tokens * sizes.block_stride() + slot % sizes.block_tokens * sizes.head_dim;
    for (int64_t head = 0; head < sizes.heads; ++head) {
      const float* source = qkv.row<float>(row) + head * sizes.head_dim;
      const int64_t offset = cell + head * sizes.block_tokens * sizes.head_dim;
      std::copy_n(source + sizes.width(), sizes.head_dim, layer.keys.data<float>() + offset);
      std::copy_n(source + 2 * sizes.width(), sizes.head_dim, layer.values.data<float>() + offset);
    }
  }
}

}  // namespace

void CpuBackend::do_attention(const Tensor& qkv, const AttentionBatch& batch, KvLayer layer, Tensor out) {
  const Sizes sizes = sizes_of(qkv, layer);
  const int64_t context_limit = std::min(kContextMax, batch.block_table.dim(1) * sizes.block_tokens);
  append(sizes, qkv, batch.kv_slots, layer);
  pool_.run(batch.num_sequences * sizes.heads, [&](int64_t item, int) {
    const int64_t sequence = item / sizes.heads, head = item % sizes.heads;
    const int64_t begin = batch.row_begin.data<int32_t>()[sequence],
                  end = batch.row_begin.data<int32_t>()[sequence + 1];
    const int64_t context = batch.context.data<int32_t>()[sequence];
    const int64_t table_row = batch.table_rows.data<int32_t>()[sequence];
    check(begin >= 0 && begin <= end && end <= sizes.num_tokens, "attention: row_begin outside the step");
    check(end - begin <= context && context <= context_limit, "attention: context outside the block table");
    check(table_row >= 0 && table_row < batch.block_table.dim(0), "attention: row outside the block table");
    const int64_t head_offset = head * sizes.block_tokens * sizes.head_dim;
    const PagedKv kv{
        .keys = layer.keys.data<float>() + head_offset,
        .values = layer.values.data<float>() + head_offset,
        .blocks = batch.block_table.row<int32_t>(table_row),
        .block_tokens = sizes.block_tokens,
        .block_stride = sizes.block_stride(),
        .head_dim = sizes.head_dim,
    };
    const int64_t offset = head * sizes.head_dim;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t visible = context - (end - row) + 1;  // up to and including the row itself
      kernels_.attend(qkv.row<float>(row) + offset, kv, visible, out.row<float>(row) + offset);
    }
  });
}

}  // namespace optserve
