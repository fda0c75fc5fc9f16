#include <algorithm>
#include <bit>
#include <cmath>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/kernel_accesses.h"
#include "base/limits.h"

namespace optserve::backend {
namespace {

constexpr int64_t kContextMax = static_cast<int64_t>(limits::kContextTokensMax);

struct Sizes {
  int64_t num_tokens, num_blocks, block_tokens, heads, head_dim;
  int64_t width() const { return heads * head_dim; }
  // The index of the cell of a slot and head among all cells.
  int64_t cell(int64_t slot, int64_t head) const {
    return (slot / block_tokens * heads + head) * block_tokens + slot % block_tokens;
  }
};

Sizes sizes_of(const Tensor& qkv, const KvLayer& layer) {
  return {qkv.dim(0), layer.keys.dim(0), layer.keys.dim(2), layer.keys.dim(1), layer.keys.dim(3)};
}

// Stores `n` elements as int8 and returns their scale. Magnitudes are compared as bits, so NaN and infinity are larger
// than all numbers. One of them makes the scale NaN or infinite too, and so every result that attends to the cell.
float store_int8(const float* elements, int64_t n, int8_t* cell) {
  constexpr float kLeast = 0x1p-100f;  // below it 127 / largest would overflow: the cell is zeros
  uint32_t bits = 0;
  for (int64_t i = 0; i < n; ++i) bits = std::max(bits, std::bit_cast<uint32_t>(elements[i]) & 0x7fffffffu);
  const auto largest = std::bit_cast<float>(bits);
  const bool has_steps = largest >= kLeast && std::isfinite(largest);
  const float steps = has_steps ? 127.0f / largest : 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    cell[i] = has_steps ? static_cast<int8_t>(std::nearbyint(elements[i] * steps)) : int8_t{0};
  }
  return largest / 127.0f;
}

// Stores `n` elements as cell `at`.
void store(const Tensor& cells, const Tensor& scales, int64_t at, const float* elements, int64_t n) {
  if (scales.empty()) {
    std::copy_n(elements, n, cells.data<float>() + at * n);
  } else {
    scales.data<float>()[at] = store_int8(elements, n, cells.data<int8_t>() + at * n);
  }
}

void append(const Sizes& sizes, const Tensor& qkv, const Tensor& kv_slots, const KvLayer& layer) {
  for (int64_t row = 0; row < sizes.num_tokens; ++row) {
    const int64_t slot = kv_slots.data<int32_t>()[row];
    check(slot >= 0 && slot < sizes.num_blocks * sizes.block_tokens, "attention: slot outside the cache");
    for (int64_t head = 0; head < sizes.heads; ++head) {
      const float* source = qkv.row<float>(row) + head * sizes.head_dim;
      const int64_t cell = sizes.cell(slot, head);
      store(layer.keys, layer.key_scales, cell, source + sizes.width(), sizes.head_dim);
      store(layer.values, layer.value_scales, cell, source + 2 * sizes.width(), sizes.head_dim);
    }
  }
}

// One head of the sequence whose block table is `blocks`.
PagedKv head_of(const Sizes& sizes, const KvLayer& layer, int64_t head, const int32_t* blocks) {
  const int64_t first = head * sizes.block_tokens;
  PagedKv kv{};
  kv.blocks = blocks;
  kv.block_tokens = sizes.block_tokens;
  kv.block_heads = sizes.heads;
  kv.head_dim = sizes.head_dim;
  if (layer.is_int8()) {
    kv.keys = layer.keys.data<int8_t>() + first * sizes.head_dim;
    kv.values = layer.values.data<int8_t>() + first * sizes.head_dim;
    kv.key_scales = layer.key_scales.data<float>() + first;
    kv.value_scales = layer.value_scales.data<float>() + first;
  } else {
    kv.keys = layer.keys.data<float>() + first * sizes.head_dim;
    kv.values = layer.values.data<float>() + first * sizes.head_dim;
  }
  return kv;
}

// What a kernel reads of the cache for this context.
void will_attend(const KvLayer& layer, const PagedKv& kv, int64_t context) {
  for (int64_t begin = 0; begin < context; begin += kv.block_tokens) {
    const int64_t tokens = std::min(kv.block_tokens, context - begin);
    const int64_t cell = kv.blocks[begin / kv.block_tokens] * kv.block_heads * kv.block_tokens;
    for (const void* cells : {kv.keys, kv.values}) {
      if (layer.is_int8()) {
        will_read(static_cast<const int8_t*>(cells) + cell * kv.head_dim, tokens * kv.head_dim);
      } else {
        will_read(static_cast<const float*>(cells) + cell * kv.head_dim, tokens * kv.head_dim);
      }
    }
    for (const float* scales : {kv.key_scales, kv.value_scales}) {
      if (layer.is_int8()) will_read(scales + cell, tokens);
    }
  }
}

}  // namespace

void CpuBackend::do_attention(const Tensor& qkv, const AttentionBatch& batch, KvLayer layer, Tensor out) {
  const Sizes sizes = sizes_of(qkv, layer);
  const int64_t context_limit = std::min(kContextMax, batch.block_table.dim(1) * sizes.block_tokens);
  append(sizes, qkv, batch.kv_slots, layer);
  const CpuKernels::Attend attend = layer.is_int8() ? kernels_.attend_int8 : kernels_.attend_f32;
  pool_.run(batch.num_sequences * sizes.heads, [&](int64_t item, int) {
    const int64_t sequence = item / sizes.heads, head = item % sizes.heads;
    const int64_t begin = batch.row_begin.data<int32_t>()[sequence],
                  end = batch.row_begin.data<int32_t>()[sequence + 1];
    const int64_t context = batch.context.data<int32_t>()[sequence];
    const int64_t table_row = batch.table_rows.data<int32_t>()[sequence];
    check(begin >= 0 && begin <= end && end <= sizes.num_tokens, "attention: row_begin outside the step");
    check(end - begin <= context && context <= context_limit, "attention: context outside the block table");
    check(table_row >= 0 && table_row < batch.block_table.dim(0), "attention: row outside the block table");
    const PagedKv kv = head_of(sizes, layer, head, batch.block_table.row<int32_t>(table_row));
    const int64_t offset = head * sizes.head_dim;
    if (begin < end) will_attend(layer, kv, context);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t visible = context - (end - row) + 1;  // up to and including the row itself
      will_read(qkv.row<float>(row) + offset, sizes.head_dim);
      will_write(out.row<float>(row) + offset, sizes.head_dim);
      attend(qkv.row<float>(row) + offset, kv, visible, out.row<float>(row) + offset);
    }
  });
}

}  // namespace optserve::backend
