// Names of files as they were published, and as tools write them.
#include <gtest/gtest.h>

#include "converter/formats/faster_transformer/part_files.h"
#include "converter/formats/metaseq.h"

namespace optserve::converter {
namespace open_foreign_test {

TEST(FileNames, OfMetaseq) {
  struct Row {
    const char* name;
    const char* stem;
    int64_t part, shard;
  };
  for (const Row& row :
       {Row{"reshard-model_part-0.pt", "reshard", 0, 0}, Row{"x/reshard.pt", "reshard", 0, 0},
        Row{"reshard-model_part-7-shard0.pt", "reshard", 7, 0},
        Row{"checkpoint_last-model_part-5-shard123.pt", "checkpoint_last", 5, 123},
        Row{"checkpoint_1_4000.pt-model_part-1.pt", "checkpoint_1_4000", 1, 0},
        Row{"checkpoint_1_6000.pt-model_part-0.pt", "checkpoint_1_6000", 0, 0},
        Row{"checkpoint_1_12000-model_part-15.pt", "checkpoint_1_12000", 15, 0},
        Row{"checkpoint_1_4000.pt", "checkpoint_1_4000", 0, 0},
        Row{"v1_20230405/66b/reshard-model_part-3.pt", "reshard", 3, 0},
        Row{"checkpoint_last-shard4.pt", "checkpoint_last", 0, 4}, Row{"restored.pt", "restored", 0, 0}}) {
    const auto file = parse_metaseq_name(row.name);
    ASSERT_TRUE(file.has_value()) << row.name;
    EXPECT_EQ(file->stem, row.stem) << row.name;
    EXPECT_EQ(file->part, row.part) << row.name;
    EXPECT_EQ(file->shard, row.shard) << row.name;
  }
  for (const char* name : {"reshard-model_part-0.bin", ".pt", "model.safetensors", "reshard.pt.tmp"}) {
    EXPECT_FALSE(parse_metaseq_name(name).has_value()) << name;
  }
}

TEST(FileNames, OfFasterTransformer) {
  EXPECT_EQ(faster_transformer_part("opt-125m-ft-mp2/part-0.pt"), 0);
  EXPECT_EQ(faster_transformer_part("part-12.pt"), 12);
  EXPECT_EQ(faster_transformer_part("rank3.pt"), 3);
  for (const char* name : {"part-.pt", "part-0", "part-99999999999999999999.pt", "weights.pt"}) {
    EXPECT_EQ(faster_transformer_part(name), -1) << name;
  }
}

}  // namespace open_foreign_test
}  // namespace optserve::converter
