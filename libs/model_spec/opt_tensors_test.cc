#include "model_spec/opt_tensors.h"

#include <gtest/gtest.h>

#include <set>

namespace optserve::model_spec {
namespace opt_tensors_test {

TEST(OptTensors, EveryPublishedSizeDividesForEveryLegalWorld) {
  for (const OptConfig& config : published_configs()) {
    const std::vector<TensorSpec> table = opt_tensors(config);
    std::set<std::string> names;
    for (const TensorSpec& spec : table) EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    for (int world : legal_worlds(config)) {
      for (const TensorSpec& spec : table) {
        int64_t elements = 0;
        for (int rank = 0; rank < world; ++rank) elements += block_of(spec, rank, world).elements();
        EXPECT_EQ(elements, spec.elements() * (spec.split == Split::kReplicated ? world : 1)) << spec.name;
      }
    }
  }
}

// Elements of one layer at N parts, from the sizes of the published model-parallel files.
TEST(OptTensors, LayerSizesOfModelParallelParts) {
  const auto layer_elements = [](const char* name, int64_t world) {
    int64_t total = 0;
    for (const TensorSpec& spec : opt_tensors(*find_published(name))) {
      if (spec.name.starts_with("layers.0.")) total += block_of(spec, 0, world).elements();
    }
    return total;
  };
  EXPECT_EQ(layer_elements("opt-125m", 1), 7'087'872);
  EXPECT_EQ(layer_elements("opt-125m", 2), 3'546'240);
  EXPECT_EQ(layer_elements("opt-1.3b", 2), 25'185'280);
  EXPECT_EQ(layer_elements("opt-30b", 4), 154'196'224);
  EXPECT_EQ(layer_elements("opt-175b", 8), 226'576'896);
}

TEST(OptTensors, BlocksOfEverySplit) {
  const TensorSpec qkv{"qkv", 24, 8, true, Split::kQkvRows, true};
  const Block second = block_of(qkv, 1, 4);
  EXPECT_EQ(second.rows, (std::vector<RowRange>{{2, 2}, {10, 2}, {18, 2}}));
  EXPECT_EQ(block_shape(qkv, 4), (std::vector<int64_t>{6, 8}));
  const TensorSpec columns{"out", 4, 8, true, Split::kColumns, true};
  EXPECT_EQ(block_of(columns, 3, 4).col_begin, 6);
  EXPECT_EQ(block_shape(columns, 4), (std::vector<int64_t>{4, 2}));
  const TensorSpec bias{"bias", 8, 1, false, Split::kRows, false};
  EXPECT_EQ(block_of(bias, 1, 2).rows, (std::vector<RowRange>{{4, 4}}));
  EXPECT_EQ(block_shape(bias, 2), (std::vector<int64_t>{4}));
}

TEST(OptTensors, TheTwoSwitches) {
  const auto has = [](const OptConfig& config, std::string_view name) {
    for (const TensorSpec& spec : opt_tensors(config)) {
      if (spec.name == name) return true;
    }
    return false;
  };
  const OptConfig& small = *find_published("opt-125m");
  const OptConfig& post = *find_published("opt-350m");
  EXPECT_TRUE(has(small, "final_norm.weight"));
  EXPECT_FALSE(has(small, "project_in.weight"));
  EXPECT_FALSE(has(post, "final_norm.weight"));
  EXPECT_TRUE(has(post, "project_in.weight"));
  EXPECT_TRUE(has(post, "project_out.weight"));
  EXPECT_FALSE(has(small, "output_projection.weight"));
  OptConfig untied = small;
  untied.tied_output = false;
  EXPECT_TRUE(has(untied, "output_projection.weight"));
}

}  // namespace opt_tensors_test
}  // namespace optserve::model_spec
