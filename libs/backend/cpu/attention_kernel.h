// Inner loop of attention(): one row's query against the paged keys and values of one head. The order of every sum
// depends on the context alone, so a row has the same bits in a whole prompt, in a chunk of it and in any batch. For
// the kernel sets only: each must have its own copy of this code, hence the anonymous namespace.
#pragma once

#include <cmath>
#include <cstring>

#include "backend/cpu/kernels.h"
#include "base/limits.h"
#include "base/simd.h"

namespace optserve::backend {
namespace {

constexpr int kTokensAtOnce = 4;  // independent sums hide the latency of a multiply-add

// How eight cells become elements. int8 cells have a scale for each token, which is applied outside of the sums.
struct CellsF32 {
  using Cell = float;
  static constexpr bool kScaled = false;
  static OPTSERVE_INLINE simd::Float8 load(const float* cells) { return simd::load(cells); }
};
struct CellsInt8 {
  using Cell = int8_t;
  static constexpr bool kScaled = true;
  static OPTSERVE_INLINE simd::Float8 load(const int8_t* cells) {
    using Char8 [[gnu::vector_size(8)]] = int8_t;
    Char8 value;
    std::memcpy(&value, cells, sizeof value);
    return __builtin_convertvector(value, simd::Float8);
  }
};

// scores[t] = a . tokens[t] for kTokens rows of n cells.
template <class Cells, int kTokens>
OPTSERVE_INLINE void dot_products(const float* a, const typename Cells::Cell* tokens, int64_t n, float* scores) {
  simd::Float8 sums[kTokens];
  for (int t = 0; t < kTokens; ++t) sums[t] = simd::Float8{};
  int64_t i = 0;
  for (; i + simd::kLanes <= n; i += simd::kLanes) {
    const simd::Float8 value = simd::load(a + i);
    for (int t = 0; t < kTokens; ++t) sums[t] += value * Cells::load(tokens + t * n + i);
  }
  for (int t = 0; t < kTokens; ++t) {
    float total = simd::sum(sums[t]);
    for (int64_t j = i; j < n; ++j) total += a[j] * static_cast<float>(tokens[t * n + j]);
    scores[t] = total;
  }
}

// sum += weights[t] * tokens[t] for kTokens rows of n cells, in their order.
template <class Cells, int kTokens>
OPTSERVE_INLINE void add_weighted(float* sum, const typename Cells::Cell* tokens, const float* weights, int64_t n) {
  int64_t i = 0;
  for (; i + simd::kLanes <= n; i += simd::kLanes) {
    simd::Float8 total = simd::load(sum + i);
    for (int t = 0; t < kTokens; ++t) total += Cells::load(tokens + t * n + i) * simd::broadcast(weights[t]);
    simd::store(sum + i, total);
  }
  for (; i < n; ++i) {
    for (int t = 0; t < kTokens; ++t) sum[i] += static_cast<float>(tokens[t * n + i]) * weights[t];
  }
}

// Calls some<n>(index, slot) for groups of n consecutive tokens, in order of tokens. The head's cells of the first of
// them begin `slot` cells after the head's cells of block 0, and likewise their scales.
template <class Some>
OPTSERVE_INLINE void for_tokens(const PagedKv& kv, int64_t context, const Some& some) {
  for (int64_t begin = 0; begin < context; begin += kv.block_tokens) {
    const int64_t count = kv.block_tokens < context - begin ? kv.block_tokens : context - begin;
    const int64_t first = kv.blocks[begin / kv.block_tokens] * kv.block_heads * kv.block_tokens;
    int64_t i = 0;
    for (; i + kTokensAtOnce <= count; i += kTokensAtOnce) {
      some.template operator()<kTokensAtOnce>(begin + i, first + i);
    }
    for (; i < count; ++i) some.template operator()<1>(begin + i, first + i);
  }
}

// Turns scores[0, n) into exp(score - largest) and returns their sum. There is room for a whole last vector.
OPTSERVE_INLINE float exponentials(float* scores, int64_t n) {
  for (int64_t i = n; i % simd::kLanes != 0; ++i) scores[i] = -INFINITY;
  simd::Float8 largest = simd::broadcast(-INFINITY);
  for (int64_t i = 0; i < n; i += simd::kLanes) largest = simd::max(largest, simd::load(scores + i));
  const float shift = simd::largest(largest);
  simd::Float8 sums{};
  for (int64_t i = 0; i < n; i += simd::kLanes) {
    const simd::Float8 term = simd::exp(simd::load(scores + i) - shift);
    simd::store(scores + i, term);
    sums += term;
  }
  return simd::sum(sums);
}

// kHeadDim is the size of a head, or 0 for one that is known at run time only.
template <class Cells, int64_t kHeadDim>
void attend(const float* query, const PagedKv& kv, int64_t context, float* out) {
  using Cell = typename Cells::Cell;
  alignas(32) float scores[limits::kContextTokensMax];
  alignas(32) float q[kHeadDimMax];
  const int64_t head_dim = kHeadDim == 0 ? kv.head_dim : kHeadDim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  for (int64_t i = 0; i < head_dim; ++i) q[i] = query[i] * scale;
  const auto* keys = static_cast<const Cell*>(kv.keys);
  const auto* values = static_cast<const Cell*>(kv.values);
  for_tokens(
      kv, context, [&]<int kTokens>(int64_t index, int64_t slot) __attribute__((always_inline)) {
        dot_products<Cells, kTokens>(q, keys + slot * head_dim, head_dim, scores + index);
        if constexpr (Cells::kScaled) {
          for (int t = 0; t < kTokens; ++t) scores[index + t] *= kv.key_scales[slot + t];
        }
      });
  const float total = exponentials(scores, context);
  for (int64_t i = 0; i < head_dim; ++i) out[i] = 0.0f;
  for_tokens(
      kv, context, [&]<int kTokens>(int64_t index, int64_t slot) __attribute__((always_inline)) {
        if constexpr (Cells::kScaled) {
          for (int t = 0; t < kTokens; ++t) scores[index + t] *= kv.value_scales[slot + t];
        }
        add_weighted<Cells, kTokens>(out, values + slot * head_dim, scores + index, head_dim);
      });
  for (int64_t i = 0; i < head_dim; ++i) out[i] /= total;
}

template <class Cells>
void attend_kernel(const float* query, const PagedKv& kv, int64_t context, float* out) {
  switch (kv.head_dim) {  // the head sizes of the published models
    case 64:
      return attend<Cells, 64>(query, kv, context, out);
    case 80:
      return attend<Cells, 80>(query, kv, context, out);
    case 128:
      return attend<Cells, 128>(query, kv, context, out);
    default:
      return attend<Cells, 0>(query, kv, context, out);
  }
}

}  // namespace
}  // namespace optserve::backend
