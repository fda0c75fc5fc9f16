// The tensor table: every weight of an OPT model with its name, its size and how ranks share it. The converter, the
// loader and the tests all use this one list.
//
// Matrices are [out, in], row-major, as in y = x W^T + b. Names say what a tensor is, and not how it is called for
// historical reasons: "ffn_norm" is the norm before the feed-forward part, and "qkv" holds queries, keys and values in
// that order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model_spec/opt_config.h"

namespace optserve::model_spec {

enum class Split : uint8_t {
  kReplicated,  // every rank has all of it
  kRows,        // rank s of S has rows [s R/S, (s+1) R/S)
  kColumns,     // rank s of S has columns [s C/S, (s+1) C/S)
  kQkvRows,     // three groups of R/3 rows (q, k, v); rank s has its share of each, stacked q, k, v
};

struct TensorSpec {
  std::string name;
  int64_t rows = 0;
  int64_t cols = 1;
  bool is_matrix = true;  // false: a vector of `rows` elements, cols is 1
  Split split = Split::kReplicated;
  bool quantisable = false;  // the large products; norms, biases and tables stay in a floating format

  std::vector<int64_t> shape() const { return is_matrix ? std::vector{rows, cols} : std::vector{rows}; }
  int64_t elements() const { return rows * cols; }
};

// All tensors in the order in which files hold them. `config` must be valid.
std::vector<TensorSpec> opt_tensors(const OptConfig& config);

// The canonical name of a layer's tensor: layer_tensor_name(3, "attention.qkv.weight").
std::string layer_tensor_name(int64_t layer, std::string_view leaf);

// A run of whole rows.
struct RowRange {
  int64_t begin = 0;
  int64_t count = 0;
  bool operator==(const RowRange&) const = default;
};

// The part of a tensor that one of `world` ranks holds: these runs of rows, stacked, and of them these columns.
struct Block {
  std::vector<RowRange> rows;  // in the order in which the block stacks them
  int64_t col_begin = 0;
  int64_t cols = 0;

  int64_t row_count() const;
  int64_t elements() const { return row_count() * cols; }
};

// `world` must be legal for the tensor's config and 0 <= rank < world.
Block block_of(const TensorSpec& spec, int64_t rank, int64_t world);
// The shape of that block: one number for a vector, two for a matrix.
std::vector<int64_t> block_shape(const TensorSpec& spec, int64_t world);

}  // namespace optserve::model_spec
