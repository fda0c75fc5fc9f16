// Embeddings, norms, copies of rows, and other operations that touch each element once. Rows are packed unless a stride
// (in elements) is given. Statistics and sums are in fp32, results are rounded once. Every function launches on
// `stream`, allocates nothing, can be captured into a graph, and returns cudaGetLastError(); sizes of zero launch
// nothing.
#pragma once

#include <cstddef>

#include "kernels/element.h"

namespace optserve::kernels {

// The beginning of a step. Row r belongs to slot slots[r] at positions[r]. If new_ids[r] >= 0 it is stored in
// history[slot, position] first; ids[r] then becomes what is stored there, or -1 for a padding row, whose slot is -1.
// Without new_ids, ids is an input. updates[i] = (row, column, block): block_table[row, column] = block, unless row is
// -1. out[r] = table[ids[r] - first_id] where 0 <= ids[r] - first_id < table_rows, else zeros; plus
// position_table[positions[r]] unless the table is null or the position -1; rounded once.
struct EmbedArgs {
  Element element = Element::kF16;
  const int32_t* new_ids = nullptr;  // [num_rows], or null
  const int32_t* slots = nullptr;    // [num_rows]
  int32_t* history = nullptr;        // [num_slots, history_stride]
  int64_t history_stride = 0;
  int32_t* ids = nullptr;              // [num_rows]
  const int32_t* positions = nullptr;  // [num_rows]
  const int32_t* updates = nullptr;    // [num_updates, 3]
  int64_t num_updates = 0;
  int32_t* block_table = nullptr;  // [rows, table_stride]
  int64_t table_stride = 0;
  const void* table = nullptr;  // [table_rows, width]
  int64_t first_id = 0;
  int64_t table_rows = 0;
  const void* position_table = nullptr;  // [positions, width], or null
  int64_t num_rows = 0;
  int64_t width = 0;
  void* out = nullptr;  // [num_rows, width]
};
cudaError_t embed(const EmbedArgs& args, cudaStream_t stream);

// x[r] += table[positions[r]]; a position of -1 leaves the row as it is.
struct AddPositionsArgs {
  Element element = Element::kF16;
  const int32_t* positions = nullptr;
  const void* table = nullptr;
  int64_t num_rows = 0;
  int64_t width = 0;
  void* x = nullptr;
};
cudaError_t add_positions(const AddPositionsArgs& args, cudaStream_t stream);

// residual[r] += x[r] + bias, unless x is null; then, unless out is null, out[r] = (residual[r] - mean) / sqrt(variance
// + 1e-5) * gamma + beta, of the rounded residual. `bias` may be null. out may be residual. Any width. If x is null, no
// kernel launched later begins before all kernels launched earlier have ended.
struct NormArgs {
  Element element = Element::kF16;
  const void* x = nullptr;
  const void* bias = nullptr;
  void* residual = nullptr;
  const void* gamma = nullptr;
  const void* beta = nullptr;
  void* out = nullptr;
  int64_t num_rows = 0;
  int64_t width = 0;
};
cudaError_t add_and_norm(const NormArgs& args, cudaStream_t stream);

// x = x/2 (1 + erf(x / sqrt 2)), in fp32, rounded once; rows `stride` elements apart.
struct GeluArgs {
  Element element = Element::kF16;
  void* x = nullptr;  // [num_rows, width]
  int64_t stride = 0;
  int64_t num_rows = 0;
  int64_t width = 0;
};
cudaError_t gelu(const GeluArgs& args, cudaStream_t stream);

// out[i] = x[rows[i]] for rows of `row_bytes`; strides in bytes. rows[i] of -1 gives zeros.
struct GatherRowsArgs {
  const void* x = nullptr;
  int64_t x_stride_bytes = 0;
  const int32_t* rows = nullptr;
  int64_t num_rows = 0;
  int64_t row_bytes = 0;
  void* out = nullptr;
};
cudaError_t gather_rows(const GatherRowsArgs& args, cudaStream_t stream);

// in [world, num_rows, local_bytes] -> out [num_rows, world * local_bytes].
cudaError_t interleave_ranks(const void* in, int64_t world, int64_t num_rows, int64_t local_bytes, void* out,
                             cudaStream_t stream);

// out[i] = the sum over r of in[r * count + i] in order of r, in fp32, rounded once; out does not overlap with in.
// [world, count].
cudaError_t sum_ranks(Element element, const void* in, int64_t world, int64_t count, void* out, cudaStream_t stream);

// out[i] = in[i] converted with one rounding to nearest even; in and out do not overlap.
cudaError_t convert(Element from, const void* in, Element to, void* out, int64_t count, cudaStream_t stream);

// The random model of libs/engine/weight_source.cc: element (r, c) of the block is
//   centre + reach * (float(mix(key + (first_row + r) * whole_cols + first_col + c) >> 40) * 2^-23 - 1)
// in fp32, rounded to `rounded_to` and then converted to `element`. mix is the finaliser of splitmix64.
struct RandomBlock {
  uint64_t key = 0;
  float centre = 0;
  float reach = 0;
  int64_t first_row = 0, rows = 0;
  int64_t first_col = 0, cols = 0;
  int64_t whole_cols = 0;
};
cudaError_t fill_random(const RandomBlock& block, Element rounded_to, Element element, void* out, cudaStream_t stream);

}  // namespace optserve::kernels
