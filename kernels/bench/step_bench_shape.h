// A decoding step of an OPT model at batch 1, reduced to what decides its time: which bytes of weights are read, and
// who waits for whom. A layer is five phases: qkv, attention (which here reads no cache), out, fc1, fc2; the LM head
// follows the last layer. Vectors are words of 32 bits, which stand for two halves each. A word of a product is
//   mixed(its number + sum over two rows of weights, word by word, of (weight xor x)),
// so it depends on every byte that must be read, and integers do not mind the order of additions.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace optserve::kernels::step_bench {

enum Kind : uint32_t { kQkv, kOut, kFc1, kFc2, kHead, kKinds };  // of products
inline constexpr uint32_t kLayerProducts = 4;
inline constexpr uint32_t kLayerPhases = 5;
inline constexpr uint32_t kWarpsMax = 16;
// A phase may overwrite the vector of the third phase before it: the words that it has waited for, even where attention
// waits for those of one head alone, were computed by blocks that had everything from the phase before, which in turn
// exists only when every reader of the vector before that has read it. Hence a block that computes no words of a
// product must not read its x: nobody would wait for it. Four buffers make the number a mask.
inline constexpr uint32_t kVectors = 4;

struct Product {
  uint64_t offset = 0;      // of the weights: from those of the layer, or from the start for the LM head
  uint32_t words = 0;       // of the result; each has two rows of weights
  uint32_t row_bytes = 0;   // of weights, and of x
  uint32_t parts_log2 = 0;  // a word's weights are read in 2^parts_log2 units
};

struct WordRange {
  uint32_t first, end;
};

struct Step {
  const char* weights = nullptr;  // layer by layer in the order of Kind, then the LM head
  uint64_t layer_bytes = 0;
  Product kinds[kKinds];
  uint32_t layers = 0, heads = 0, head_words = 0, hidden_words = 0;
  uint32_t unit_bytes = 0;  // what a warp reads by one bulk copy; a multiple of 16
  uint32_t grain_log2 = 0;  // a block takes groups of 2^grain_log2 words
  uint32_t rotation = 0;    // by how many blocks the split moves from product to product

  __host__ __device__ uint32_t products() const { return kLayerProducts * layers + 1; }
  __host__ __device__ uint32_t phases() const { return kLayerPhases * layers + 1; }
  __host__ __device__ uint32_t kind_of(uint32_t product) const {
    return product == kLayerProducts * layers ? kHead : product % kLayerProducts;
  }
  // The number of a product among the phases. Attention has the number after qkv's.
  __host__ __device__ uint32_t phase_of(uint32_t product) const {
    if (product == kLayerProducts * layers) return kLayerPhases * layers;
    const uint32_t kind = product % kLayerProducts;
    return product / kLayerProducts * kLayerPhases + kind + (kind > kQkv ? 1 : 0);
  }
  __host__ __device__ uint64_t offset_of(uint32_t product) const {
    const uint32_t kind = kind_of(product);
    return kinds[kind].offset + (kind == kHead ? 0 : product / kLayerProducts * layer_bytes);
  }
  // The words of a product that a block computes, which may be none.
  __host__ __device__ WordRange words_of(uint32_t product, uint32_t block, uint32_t blocks) const {
    const uint32_t groups = kinds[kind_of(product)].words >> grain_log2, rank = (block + product * rotation) % blocks;
    return {groups * rank / blocks << grain_log2, groups * (rank + 1) / blocks << grain_log2};
  }
  __host__ __device__ uint64_t bytes() const {
    const Product& head = kinds[kHead];
    return head.offset + uint64_t{2} * head.row_bytes * head.words;
  }
};

// Where things lie in a block's shared memory, in bytes.
struct Layout {
  uint32_t slots = 0;  // units in the ring of a warp
  uint32_t x[2] = {};  // products use them in turn
  uint32_t cells = 0;  // 64 bits for each word of the block
  uint32_t cell_count = 0;
  uint32_t barriers = 0, ring = 0, bytes = 0;
};

// What the persistent step has in global memory besides the weights.
struct Vectors {
  const uint32_t* x0 = nullptr;  // what the first layer gets
  uint64_t* tagged = nullptr;    // kVectors buffers: a word below, above it the tag of its phase
  uint32_t* logits = nullptr;
  uint32_t* turn = nullptr;  // how many persistent steps were done, and how many blocks have ended this one
  uint32_t words_max = 0;    // of a buffer
};

struct Watch {
  uint32_t* gave_up = nullptr;  // set once a wait took longer than limit_ns
  uint64_t limit_ns = 0;
  uint32_t sleep_ns = 0;  // between two looks
  uint32_t delay_ns = 0;  // for tests: some warps come so much too late
};

__host__ __device__ inline uint32_t mixed(uint32_t v) {
  v = (v ^ (v >> 16)) * 0x85ebca6bu;
  v = (v ^ (v >> 13)) * 0xc2b2ae35u;
  return v ^ (v >> 16);
}

// The 32-bit word of random weights at `index`.
__host__ __device__ inline uint32_t weight_word(uint64_t index) {
  return mixed(static_cast<uint32_t>(index) * 0x9e3779b1u + static_cast<uint32_t>(index >> 32) + 12345u);
}

}  // namespace optserve::kernels::step_bench
