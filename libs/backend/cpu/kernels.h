// The inner loops of the CPU operations. They are compiled twice, for any machine and for AVX2 with FMA; the operations
// call the widest set that the machine can run. The loops themselves are in {attention,linear,norm}_kernel.h.
#pragma once

#include <cstdint>

#include "backend/backend.h"

namespace optserve::backend {

// A packed weight holds kPanelWidth outputs side by side for every input: panel[in][kPanelWidth]. The panels follow
// each other, and the last one is filled up with zeros. int4 has two inputs in a byte, the first one in its lower half.
// Scales are panel[groups][kPanelWidth].
inline constexpr int kPanelWidth = 16;

// y = activation(x * weight^T + bias). x: [rows, in], y: [rows, out], with floats between their rows.
struct LinearProduct {
  const float* x;
  int64_t x_stride;
  int64_t rows, in, out;
  const void* weight;   // packed, in the format that selects the kernel
  const float* scales;  // packed; null for plain formats
  int64_t group;        // inputs that share a scale; `in` for plain formats and for scales of whole rows
  const float* bias;    // [out] or null
  Activation activation;
  float* y;
  int64_t y_stride;
};

// Keys and values of one head of one sequence, found through its block table.
struct PagedKv {
  const void* keys;  // of the head in block 0; a block holds block_tokens cells of head_dim elements side by side
  const void* values;
  const float* key_scales;    // of the head in block 0, block_tokens side by side; int8 cells only
  const float* value_scales;  // same
  const int32_t* blocks;      // the sequence's block table
  int64_t block_tokens;
  int64_t block_heads;  // heads per block
  int64_t head_dim;     // at most kHeadDimMax
};

struct CpuKernels {
  using Linear = void (*)(const LinearProduct& product, int64_t first_panel, int64_t last_panel);
  Linear linear_f32, linear_f16, linear_bf16, linear_int8, linear_fp8, linear_int4;
  // out[head_dim] = softmax(query k^T / sqrt(head_dim)) v over the first `context` tokens, for either type of cells.
  using Attend = void (*)(const float* query, const PagedKv& kv, int64_t context, float* out);
  Attend attend_f32, attend_int8;
  void (*layer_norm)(const float* x, const float* gamma, const float* beta, float* out, int64_t hidden);
  void (*add)(const float* x, const float* bias, float* residual, int64_t hidden);  // bias may be null
};

const CpuKernels& baseline_kernels();
// Null if this build or this machine has no AVX2 with FMA and F16C.
const CpuKernels* avx2_kernels();
const CpuKernels& widest_kernels();

}  // namespace optserve::backend
