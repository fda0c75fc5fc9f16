#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "base/limits.h"
#include "base/simd.h"
#include "tensor/shape_check.h"

namespace optserve {
namespace {

using simd::Float8;
using simd::kLanes;

constexpr int64_t kContextMax = static_cast<int64_t>(limits::kContextTokensMax);
constexpr int64_t kHeadDimMax = 256;

// The keys or values of one sequence and head, found through its block table.
struct PagedHead {
  const float* data;      // of the head in block 0
  const int32_t* blocks;  // the sequence's block table
  int64_t block_tokens;
  int64_t token_stride;  // heads * head_dim

  OPTSERVE_INLINE const float* token(int64_t index) const {
    const int64_t slot = blocks[index / block_tokens] * block_tokens + index % block_tokens;
    return data + slot * token_stride;
  }
};

OPTSERVE_INLINE float dot(const float* a, const float* b, int64_t n) {
  Float8 sums{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sums += simd::load(a + i) * simd::load(b + i);
  float total = simd::sum(sums);
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

OPTSERVE_INLINE void add_scaled(float* sum, const float* x, float scale, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) simd::store(sum + i, simd::load(sum + i) + simd::load(x + i) * scale);
  for (; i < n; ++i) sum[i] += x[i] * scale;
}

// Turns scores[0, n) into exp(score - largest) and returns their sum. Room for a whole last vector is needed.
OPTSERVE_INLINE float exponentials(float* scores, int64_t n) {
  for (int64_t i = n; i % kLanes != 0; ++i) scores[i] = -INFINITY;
  Float8 largest = simd::broadcast(-INFINITY);
  for (int64_t i = 0; i < n; i += kLanes) largest = simd::max(largest, simd::load(scores + i));
  const float shift = simd::largest(largest);
  Float8 sums{};
  for (int64_t i = 0; i < n; i += kLanes) {
    const Float8 term = simd::exp(simd::load(scores + i) - shift);
    simd::store(scores + i, term);
    sums += term;
  }
  return simd::sum(sums);
}

// out = softmax(q k^T / sqrt(head_dim)) v over the first `context` tokens.
void attend(const float* query, const PagedHead& keys, const PagedHead& values, int64_t context, int64_t head_dim,
            float* out) {
  alignas(32) std::array<float, kContextMax> scores;
  alignas(32) std::array<float, kHeadDimMax> q;
  simd::run_widest([&]() __attribute__((always_inline)) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
    for (int64_t i = 0; i < head_dim; ++i) q[static_cast<size_t>(i)] = query[i] * scale;
    for (int64_t token = 0; token < context; ++token) {
      scores[static_cast<size_t>(token)] = dot(q.data(), keys.token(token), head_dim);
    }
    const float total = exponentials(scores.data(), context);
    std::fill_n(out, head_dim, 0.0f);
    for (int64_t token = 0; token < context; ++token) {
      add_scaled(out, values.token(token), scores[static_cast<size_t>(token)], head_dim);
    }
    for (int64_t i = 0; i < head_dim; ++i) out[i] /= total;
  });
}

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

  pool_.run(batch.num_sequences * sizes.heads, [&](int64_t item, int) {
    const int64_t sequence = item / sizes.heads, head = item % sizes.heads;
    const int64_t begin = batch.row_begin.data<int32_t>()[sequence],
                  end = batch.row_begin.data<int32_t>()[sequence + 1];
    const int64_t context = batch.context.data<int32_t>()[sequence];
    check(begin >= 0 && begin <= end && end <= sizes.num_tokens, "attention: row_begin outside the step");
    check(end - begin <= context && context <= context_limit, "attention: context outside the block table");
    const int32_t* blocks = batch.block_table.row<int32_t>(sequence);
    const int64_t offset = head * sizes.head_dim;
    const PagedHead keys{layer.keys.data<float>() + offset, blocks, sizes.block_tokens, sizes.width()};
    const PagedHead values{layer.values.data<float>() + offset, blocks, sizes.block_tokens, sizes.width()};
    for (int64_t row = begin; row < end; ++row) {
      const int64_t visible = context - (end - row) + 1;  // up to and including the row itself
      attend(qkv.row<float>(row) + offset, keys, values, visible, sizes.head_dim, out.row<float>(row) + offset);
    }
  });
}

}  // namespace optserve
