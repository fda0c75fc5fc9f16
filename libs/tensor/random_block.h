// Values made from a key and their place in a whole tensor: any part of a random model can be made on any device with
// the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "tensor/dtype.h"

namespace optserve {

// Some rows and columns of a matrix of `whole_cols` columns. Element (r, c) of the whole matrix is centre + reach * u
// in fp32, rounded to `dtype`, where u in [-1, 1) comes from the top 24 bits of mix(key + r * whole_cols + c), the
// finaliser of splitmix64.
struct RandomBlock {
  struct Run {
    int64_t first_row = 0;
    int64_t rows = 0;
  };
  uint64_t key = 0;
  float centre = 0;
  float reach = 0;
  DType dtype = DType::kF16;
  std::vector<Run> runs;  // stacked
  int64_t first_col = 0;
  int64_t cols = 0;
  int64_t whole_cols = 0;

  int64_t rows() const;
  int64_t elements() const { return rows() * cols; }
};

// G. L. Steele, D. Lea, C. H. Flood: Fast splittable pseudorandom number generators. OOPSLA 2014.
constexpr uint64_t splitmix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Row-major elements of block.dtype; out.size() == elements() * their size.
void fill_random(const RandomBlock& block, std::span<std::byte> out);

}  // namespace optserve
