#include <algorithm>

#include "backend/cpu/cpu_backend.h"
#include "base/limits.h"
#include "tensor/shape_check.h"

namespace optserve {
namespace {

constexpr int64_t kContextMax = static_cast<int64_t>(limits::kContextTokensMax);

struct Sizes {
  int64_t num_tokens, num_blocks, block_tokens, heads, head_dim;
  int64_t width() const { return heads * head_dim; }
  int64_t block_stride() const { return heads * block_tokens * head_dim; }
};

Sizes expect_cache(ShapeCheck& shapes, const Tensor& qkv, const KvLayer& layer) {
  shapes.expect_contiguous("keys", layer.keys, DType::kF32, {"num_blocks", "heads", "block_tokens", "head_dim"});
  shapes.expect_contiguous("values", layer.values, DType::kF32, {"num_blocks", "heads", "block_tokens", "head_dim"});
  shapes.bind("3 * heads * head_dim", 3 * shapes["heads"] * shapes["head_dim"]);
  shapes.expect("qkv", qkv, DType::kF32, {"num_tokens", "3 * heads * head_dim"});
  return {shapes["num_tokens"], shapes["num_blocks"], shapes["block_tokens"], shapes["heads"], shapes["head_dim"]};
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

void CpuBackend::attention(const Tensor& qkv, const AttentionBatch& batch, KvLayer layer, Tensor out) {
  ShapeCheck shapes("attention");
  const Sizes sizes = expect_cache(shapes, qkv, layer);
  shapes.bind("heads * head_dim", sizes.width()).bind("num_sequences", batch.num_sequences);
  shapes.bind("num_sequences + 1", batch.num_sequences + 1);
  shapes.expect("out", out, DType::kF32, {"num_tokens", "heads * head_dim"});
  shapes.expect("row_begin", batch.row_begin, DType::kI32, {"num_sequences + 1"});
  shapes.expect("context", batch.context, DType::kI32, {"num_sequences"});
  shapes.expect("table_rows", batch.table_rows, DType::kI32, {"num_sequences"});
  shapes.expect("block_table", batch.block_table, DType::kI32, {"slots", "max_blocks"});
  shapes.expect("kv_slots", batch.kv_slots, DType::kI32, {"num_tokens"});
  check(sizes.head_dim <= kHeadDimMax, "attention: head_dim above 256");
  const int64_t context_limit = std::min(kContextMax, shapes["max_blocks"] * sizes.block_tokens);
  append(sizes, qkv, batch.kv_slots, layer);
  pool_.run(batch.num_sequences * sizes.heads, [&](int64_t item, int) {
    const int64_t sequence = item / sizes.heads, head = item % sizes.heads;
    const int64_t begin = batch.row_begin.data<int32_t>()[sequence],
                  end = batch.row_begin.data<int32_t>()[sequence + 1];
    const int64_t context = batch.context.data<int32_t>()[sequence];
    const int64_t table_row = batch.table_rows.data<int32_t>()[sequence];
    check(begin >= 0 && begin <= end && end <= sizes.num_tokens, "attention: row_begin outside the step");
    check(end - begin <= context && context <= context_limit, "attention: context outside the block table");
    check(table_row >= 0 && table_row < shapes["slots"], "attention: row outside the block table");
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
