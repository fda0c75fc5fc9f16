// Attention over a paged KV cache: keys and values are [num_blocks, heads, kBlockTokens, head_dim], so that the cells
// of one head in one block are contiguous. Cells are elements, or int8 with scales (kernels/attention/kv_cells.cuh).
// All sums and the softmax are in fp32. head_dim is any size up to kHeadDimMax; 64, 80 and 128 in fp16 and bf16 are the
// fast paths. Every function launches on `stream`, allocates nothing, can be captured into a graph, and returns
// cudaGetLastError().
#pragma once

#include <cstddef>

#include "kernels/device_limits.h"
#include "kernels/element.h"

namespace optserve::kernels {

inline constexpr int kBlockTokens = 16;
inline constexpr int kHeadDimMax = 256;
inline constexpr int kPrefillTileRows = 128;

struct AttentionArgs {
  Element element = Element::kF16;  // of qkv, out, and the cells unless they have scales
  int heads = 0;
  int head_dim = 0;
  int64_t num_tokens = 0;
  const void* qkv = nullptr;             // [num_tokens, 3 * heads * head_dim]: q, k, v
  void* keys = nullptr;                  // [num_blocks, heads, kBlockTokens, head_dim]; offsets may exceed 2^31
  void* values = nullptr;                // same
  int64_t num_blocks = 0;                // of keys and values
  float* key_scales = nullptr;           // [num_blocks, heads, kBlockTokens] where the cells are int8, else null
  float* value_scales = nullptr;         // same
  const int32_t* table_rows = nullptr;   // [num_sequences]: row of block_table of each sequence
  const int32_t* block_table = nullptr;  // [rows, table_stride]: KV blocks in order of position
  int64_t table_stride = 0;
  const int32_t* row_begin = nullptr;  // [num_sequences + 1]: rows of each sequence in qkv and out
  const int32_t* context = nullptr;    // [num_sequences]: tokens in the cache including this step's
  void* out = nullptr;                 // [num_tokens, heads * head_dim]
  // Decoding: true if every kernel that wrote context, table_rows, block_table or a cell below context - 1 has ended
  // before any kernel launched after it could begin: between them and this call, some kernel calls wait_for_previous()
  // before allow_next(), or is launched without the attribute. Decoding then loads these before its own wait.
  bool is_cache_settled = false;
};

// Sequences [0, num_sequences), each with exactly one row, row s. Stores its K and V at position context[s] - 1 and
// attends to positions [0, context[s]). A sequence with context 0 is padding: nothing is read or stored for it, and its
// row of `out` becomes zeros. A context is cut into at most `splits` parts that different blocks of threads work on;
// the last one to finish merges them in their order, so the result depends on (context, splits) alone. `scratch` has
// decode_scratch_bytes(), is filled with zeros once before the first call, and is then used by these calls alone, which
// leave its counters at zero.
cudaError_t decode_attention(const AttentionArgs& args, int64_t num_sequences, int splits, void* scratch,
                             cudaStream_t stream);
size_t decode_scratch_bytes(int64_t num_sequences_max, int heads, int head_dim);
inline constexpr int kSplitsMax = 16;
// The number of splits that fills a GPU of `multiprocessors` with this many sequences.
int decode_splits(int64_t num_sequences, int heads, int head_dim, int multiprocessors);

// Stores the K and V of rows [first_row, first_row + num_rows) of qkv at kv_slots[row] (block * kBlockTokens + offset);
// a slot of -1 stores nothing.
cudaError_t append_kv(const AttentionArgs& args, const int32_t* kv_slots, int64_t first_row, int64_t num_rows,
                      cudaStream_t stream);

// Rows of prompts: `tiles` is [num_tiles, 2]: a sequence and the first of its rows that the tile covers, a multiple of
// kPrefillTileRows; a tile ends with the sequence. Row i of n of a sequence attends to positions
// [0, context - n + i + 1), which append_kv() has stored before.
cudaError_t prefill_attention(const AttentionArgs& args, const int32_t* tiles, int64_t num_tiles, cudaStream_t stream);

// The same with Hopper's warpgroup multiplications, for fp16 and bf16 cells and head_dim 64 and 128. It adds in a
// different order than the function above.
bool can_prefill_on_hopper(const AttentionArgs& args, const DeviceLimits& device);
cudaError_t prefill_attention_on_hopper(const AttentionArgs& args, const int32_t* tiles, int64_t num_tiles,
                                        const DeviceLimits& device, cudaStream_t stream);

}  // namespace optserve::kernels
