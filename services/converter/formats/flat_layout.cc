#include "converter/formats/flat_layout.h"

#include <algorithm>
#include <utility>

namespace optserve::converter {
namespace {

constexpr int64_t kWidthMax = 1 << 20;

int64_t layer_elements(int64_t hidden, int64_t parts) {
  return flat_elements(layer_slices({.hidden = hidden, .ffn = 4 * hidden, .parts = parts}, ""));
}

}  // namespace

std::vector<FlatSlice> layer_slices(const FlatSizes& sizes, const std::string& prefix) {
  const int64_t h = sizes.hidden;
  const int64_t h_part = h / sizes.parts;
  const int64_t ffn_part = sizes.ffn / sizes.parts;
  return {{prefix + "self_attn.qkv_proj.weight", {3 * h_part, h}},
          {prefix + "self_attn.qkv_proj.bias", {3 * h_part}},
          {prefix + "self_attn.out_proj.weight", {h, h_part}},
          {prefix + "self_attn.out_proj.bias", {h}},
          {prefix + "self_attn_layer_norm.weight", {h}},
          {prefix + "self_attn_layer_norm.bias", {h}},
          {prefix + "fc1.weight", {ffn_part, h}},
          {prefix + "fc1.bias", {ffn_part}},
          {prefix + "fc2.weight", {h, ffn_part}},
          {prefix + "fc2.bias", {h}},
          {prefix + "final_layer_norm.weight", {h}},
          {prefix + "final_layer_norm.bias", {h}}};
}

std::vector<FlatSlice> root_slices(const FlatSizes& sizes, const std::vector<int64_t>& inside) {
  std::vector<FlatSlice> slices = {{"decoder.embed_tokens.weight", {sizes.vocab_rows, sizes.hidden}},
                                   {"decoder.embed_positions.weight", {sizes.position_rows, sizes.hidden}}};
  for (int64_t layer : inside) {
    for (FlatSlice& slice : layer_slices(sizes, "decoder.layers." + std::to_string(layer) + ".")) {
      slices.push_back(std::move(slice));
    }
  }
  slices.push_back({"decoder.layer_norm.weight", {sizes.hidden}});
  slices.push_back({"decoder.layer_norm.bias", {sizes.hidden}});
  return slices;
}

int64_t flat_elements(const std::vector<FlatSlice>& slices) {
  int64_t total = 0;
  for (const FlatSlice& slice : slices) {
    int64_t elements = 1;
    for (int64_t size : slice.shape) elements *= size;
    total += elements;
  }
  return total;
}

int64_t FlatCut::filled(int64_t shard) const {
  const int64_t begin = std::min(shard * chunk(), elements);
  return std::min(begin + chunk(), elements) - begin;
}

std::optional<int64_t> width_of_layer(int64_t stored, int64_t shards, int64_t parts) {
  const auto stored_at = [&](int64_t hidden) {
    return FlatCut{layer_elements(hidden, parts), shards}.chunk() * shards;
  };
  // The number of elements grows with the width, so the first multiple of `parts` that needs `stored` of them is the
  // only candidate.
  int64_t low = 1;
  int64_t high = kWidthMax / parts;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (stored_at(middle * parts) < stored) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (stored_at(low * parts) != stored || stored_at((low + 1) * parts) == stored) return std::nullopt;
  return low * parts;
}

}  // namespace optserve::converter
