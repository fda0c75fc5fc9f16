#include "converter/formats/flat_layout.h"

#include <gtest/gtest.h>

#include "model_spec/opt_config.h"

namespace optserve::converter {
namespace flat_layout_test {

FlatSizes sizes_of(const char* name, int64_t parts) {
  const model_spec::OptConfig& config = *model_spec::find_published(name);
  return {.hidden = config.hidden,
          .ffn = config.ffn,
          .vocab_rows = config.vocab / parts,
          .position_rows = config.max_positions + 2,
          .parts = parts};
}

// 992 files of 8 parts by 124 shards: chunks and padding as Metaseq's shard_metadata has them.
TEST(FlatLayout, CutsOpt175B) {
  const FlatSizes sizes = sizes_of("opt-175b", 8);
  const FlatCut layer{flat_elements(layer_slices(sizes, "")), 124};
  EXPECT_EQ(layer.elements, 226'576'896);
  EXPECT_EQ(layer.chunk(), 1'827'234);
  EXPECT_EQ(layer.chunk() * layer.shards, 226'577'016);
  EXPECT_EQ(layer.padding(122), 0);
  EXPECT_EQ(layer.padding(123), 120);
  const FlatCut root{flat_elements(root_slices(sizes)), 124};
  EXPECT_EQ(root.elements, 102'432'768);
  EXPECT_EQ(root.chunk(), 826'071);
  EXPECT_EQ(root.padding(122), 0);
  EXPECT_EQ(root.padding(123), 36);
  EXPECT_EQ(2 * (root.elements + 96 * layer.elements), 43'707'629'568) << "bytes of one part in fp16";
}

// Bytes of one part in fp16, and elements of one layer in it.
TEST(FlatLayout, SizesOfPublishedParts) {
  struct Row {
    const char* name;
    int64_t parts, bytes, layer_elements;
  };
  for (const Row& row :
       {Row{"opt-125m", 1, 250'478'592, 7'087'872}, Row{"opt-125m", 2, 126'870'528, 3'546'240},
        Row{"opt-125m", 4, 65'066'496, 1'775'424}, Row{"opt-1.3b", 1, 2'631'516'160, 50'358'272},
        Row{"opt-1.3b", 2, 1'320'255'488, 25'185'280}, Row{"opt-2.7b", 4, 1'334'415'360, 19'680'640},
        Row{"opt-6.7b", 2, 6'667'665'408, 100'702'208}, Row{"opt-13b", 2, 12'865'208'320, 157'335'040},
        Row{"opt-30b", 2, 29'991'313'408, 308'349'440}, Row{"opt-30b", 4, 15'012'429'824, 154'196'224},
        Row{"opt-66b", 8, 16'469'213'184, 127'465'344}, Row{"opt-175b", 1, 349'208'936'448, 1'812'099'072}}) {
    const FlatSizes sizes = sizes_of(row.name, row.parts);
    const int64_t layer = flat_elements(layer_slices(sizes, "decoder.layers.0."));
    const int64_t layers = model_spec::find_published(row.name)->num_layers;
    EXPECT_EQ(layer, row.layer_elements) << row.name << " in " << row.parts;
    EXPECT_EQ(2 * (flat_elements(root_slices(sizes)) + layers * layer), row.bytes) << row.name << " in " << row.parts;
  }
}

TEST(FlatLayout, ShardsBeyondTheDataArePadding) {
  const FlatCut cut{10, 7};  // torch.chunk gives five chunks of two
  EXPECT_EQ(cut.chunk(), 2);
  EXPECT_EQ(cut.filled(4), 2);
  EXPECT_EQ(cut.padding(5), 2);
  EXPECT_EQ(cut.padding(6), 2);
  int64_t total = 0;
  for (int64_t shard = 0; shard < cut.shards; ++shard) total += cut.filled(shard);
  EXPECT_EQ(total, 10);
}

TEST(FlatLayout, FindsTheWidthOfALayer) {
  for (const model_spec::OptConfig& config : model_spec::published_configs()) {
    for (int64_t parts : {1, 2, 4, 8}) {
      if (config.hidden % parts != 0) continue;
      const FlatSizes sizes{.hidden = config.hidden, .ffn = config.ffn, .parts = parts};
      for (int64_t shards : {1, 3, 124}) {
        const FlatCut cut{flat_elements(layer_slices(sizes, "")), shards};
        const int64_t stored = cut.chunk() * shards;
        EXPECT_EQ(width_of_layer(stored, shards, parts), config.hidden) << config.name << " " << parts;
        EXPECT_FALSE(width_of_layer(stored + 1, shards, parts).has_value());
      }
    }
  }
  EXPECT_FALSE(width_of_layer(1 << 20, 1 << 20, 1).has_value()) << "several widths fit";
}

}  // namespace flat_layout_test
}  // namespace optserve::converter
