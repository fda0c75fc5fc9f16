// The tiles into which the attention kernels cut prompts.
#pragma once

#include "kernels/attention/types.cuh"

namespace optserve::kernels {

// Some rows of one sequence; the last tile of a sequence may have fewer.
struct Tile {
  int sequence;
  int first_row;  // in qkv and out
  int rows;       // fewer, or none, if the part goes beyond the end of the tile
  int visible;    // positions that its first row sees; each row sees one more than the row before
};

// Rows [part, part + rows_max) of the tile that `tile` points to.
__device__ __forceinline__ Tile find_tile(const AttentionArgs& args, const int32_t* tile, int part, int rows_max) {
  const int sequence = tile[0], first = tile[1] + part;
  const int begin = args.row_begin[sequence], rows = args.row_begin[sequence + 1] - begin;
  return {sequence, begin + first, min(rows - first, rows_max), args.context[sequence] - rows + first + 1};
}

}  // namespace optserve::kernels
