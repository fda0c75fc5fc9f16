// The arithmetic of weights that FSDP flattened: which tensors a vector holds, and how it is cut over shards. Reads no
// files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace optserve::converter {

struct FlatSlice {
  std::string name;
  std::vector<int64_t> shape;
};

// One of `parts` model-parallel parts of a model of these sizes.
struct FlatSizes {
  int64_t hidden = 0;
  int64_t ffn = 0;
  int64_t vocab_rows = 0;     // of the token table, in one part
  int64_t position_rows = 0;  // the two unused ones included
  int64_t parts = 1;
};

// In the order in which modules register their parameters, which is the order of flattening. `prefix` is
// "decoder.layers.3.", or empty.
std::vector<FlatSlice> layer_slices(const FlatSizes& sizes, const std::string& prefix);
// What the vector of the root module holds: the tables, the layers `inside` (those that are too small for vectors of
// their own) and the final norm. The output projection is the token table and is not stored.
std::vector<FlatSlice> root_slices(const FlatSizes& sizes, const std::vector<int64_t>& inside = {});
int64_t flat_elements(const std::vector<FlatSlice>& slices);

// A vector cut over shards as torch.chunk does it: each has ceil(n / W) elements, with zeros after the end of the data.
// The last shards may hold nothing but zeros.
struct FlatCut {
  int64_t elements = 0;  // n, without padding
  int64_t shards = 1;    // W

  int64_t chunk() const { return (elements + shards - 1) / shards; }
  int64_t filled(int64_t shard) const;  // elements of data in that shard
  int64_t padding(int64_t shard) const { return chunk() - filled(shard); }
};

// The width h of a model with ffn = 4h whose layers take `stored` elements, padding included, over all shards of a
// part; nullopt if no width, or more than one, gives that.
std::optional<int64_t> width_of_layer(int64_t stored, int64_t shards, int64_t parts);

}  // namespace optserve::converter
