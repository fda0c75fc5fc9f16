// For tests: where the elements of a block are in their matrix.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "model_spec/opt_tensors.h"

namespace optserve::checkpoint::testing {

// The row and column of every `step`-th element of each row, in the order of the block, by the block's definition.
inline std::vector<std::pair<int64_t, int64_t>> places_of(const model_spec::Block& block, int64_t step = 1) {
  std::vector<std::pair<int64_t, int64_t>> places;
  for (const model_spec::RowRange& range : block.rows) {
    for (int64_t row = range.begin; row < range.begin + range.count; ++row) {
      for (int64_t col = block.col_begin; col < block.col_begin + block.cols; col += step) {
        places.emplace_back(row, col);
      }
    }
  }
  return places;
}

}  // namespace optserve::checkpoint::testing
