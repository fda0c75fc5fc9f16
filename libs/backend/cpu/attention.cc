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
};

Sizes expect_cache(ShapeCheck& shapes, const Tensor& qkv, const KvLayer& layer) {
  shapes.expect_contiguous("keys", layer.keys, DType::kF32, {"num_blocks", "block_tokens", "heads", "head_dim"});
  shapes.expect_contiguous("values", layer.values, DType::kF32, {"num_blocks", "block_tokens", "heads", "head_dim"});
  shapes.bind("3 * heads * head_dim", 3 * shapes["heads"] * shapes["head_dim"]);
  shapes.expect("qkv", qkv, DType::kF32, {"num_tokens", "3 * heads * head_dim"});
  return {shapes["num_tokens"], shapes["num_blocks"], shapes["block_tokens"], shapes["heads"], shapes["head_dim"]};
}

}  // namespace

void CpuBackend::append_kv(const Tensor& qkv, const AttentionBatch& batch, KvLayer layer) {
  ShapeCheck shapes("append_kv");
  const Sizes sizes = expect_cache(shapes, qkv, layer);
  shapes.expect("kv_slots", batch.kv_slots, DType::kI32, {"num_tokens"});
  const int64_t width = sizes.width();
  for (int64_t row = 0; row < sizes.num_tokens; ++row) {
    const int64_t slot = batch.kv_slots.data<int32_t>()[row];
    check(slot >= 0 && slot < sizes.num_blocks * sizes.block_tokens, "append_kv: slot outside the cache");
    std::copy_n(qkv.row<float>(row) + width, width, layer.keys.data<float>() + slot * width);
    std::copy_n(qkv.row<float>(row) + 2 * width, width, layer.values.data<float>() + slot * width);
  }
}

void CpuBackend::attention(const Tensor& qkv, const AttentionBatch& batch, const KvLayer& layer, Tensor out) {
  ShapeCheck shapes("attention");
  const Sizes sizes = expect_cache(shapes, qkv, layer);
  shapes.bind("heads * head_dim", sizes.width()).bind("num_sequences", batch.num_sequences);
  shapes.bind("num_sequences + 1", batch.num_sequences + 1);
  shapes.expect("out", out, DType::kF32, {"num_tokens", "heads * head_dim"});
  shapes.expect("row_begin", batch.row_begin, DType::kI32, {"num_sequences + 1"});
  shapes.expect("context", batch.context, DType::kI32, {"num_sequences"});
  shapes.expect("block_table", batch.block_table, DType::kI32, {"num_sequences", "max_blocks"});
  check(sizes.head_dim <= kHeadDimMax, "attention: head_dim above 256");
  const int64_t context_limit = std::min(kContextMax, shapes["max_blocks"] * sizes.block_tokens);

  // Decoding waits for memory, and neighbouring heads are neighbours there; a prompt's rows reuse one head from the
  // cache.
  const int64_t group = batch.max_rows <= kHeadsMax ? kHeadsMax : 1;
  const int64_t groups = (sizes.heads + group - 1) / group;
  pool_.run(batch.num_sequences * groups, [&](int64_t item, int) {
    const int64_t sequence = item / groups, first_head = item % groups * group;
    const int64_t begin = batch.row_begin.data<int32_t>()[sequence],
                  end = batch.row_begin.data<int32_t>()[sequence + 1];
    const int64_t context = batch.context.data<int32_t>()[sequence];
    check(begin >= 0 && begin <= end && end <= sizes.num_tokens, "attention: row_begin outside the step");
    check(end - begin <= context && context <= context_limit, "attention: context outside the block table");
    const int64_t offset = first_head * sizes.head_dim;
    const PagedKv kv{
        .keys = layer.keys.data<float>() + offset,
        .values = layer.values.data<float>() + offset,
        .blocks = batch.block_table.row<int32_t>(sequence),
        .block_tokens = sizes.block_tokens,
        .token_stride = sizes.width(),
        .heads = std::min(group, sizes.heads - first_head),
        .head_dim = sizes.head_dim,
    };
    for (int64_t row = begin; row < end; ++row) {
      const int64_t visible = context - (end - row) + 1;  // up to and including the row itself
      kernels_.attend(qkv.row<float>(row) + offset, kv, visible, out.row<float>(row) + offset);
    }
  });
}

}  // namespace optserve
