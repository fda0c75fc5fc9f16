#include "converter/write/passes.h"

#include <gtest/gtest.h>

namespace optserve::converter {
namespace pass_plan_test {

constexpr uint64_t kGiB = uint64_t{1} << 30;

TEST(PassPlan, SmallModelsGoInOnePassAndLargeOnesInFourAtMost) {
  EXPECT_EQ(shards_per_pass(8, 3 * kGiB, 0), 8);   // OPT-13B
  EXPECT_EQ(shards_per_pass(8, 7 * kGiB, 0), 4);   // OPT-30B
  EXPECT_EQ(shards_per_pass(8, 15 * kGiB, 0), 2);  // OPT-66B
  EXPECT_EQ(shards_per_pass(8, 41 * kGiB, 0), 2);  // OPT-175B
  EXPECT_EQ(shards_per_pass(1, 100 * kGiB, 0), 1);
}

TEST(PassPlan, ABoundIsKeptUnlessOneShardExceedsIt) {
  EXPECT_EQ(shards_per_pass(8, kGiB, 1), 1);
  EXPECT_EQ(shards_per_pass(8, kGiB, 2048), 2);
  EXPECT_EQ(shards_per_pass(8, kGiB, 8192), 8);
  EXPECT_EQ(shards_per_pass(8, kGiB, int64_t{1} << 40), 8);
  EXPECT_EQ(shards_per_pass(8, 0, 1), 8);
}

TEST(PassPlan, PassesAreEven) {
  EXPECT_EQ(shards_per_pass(8, kGiB, 7 * 1024), 4);
  EXPECT_EQ(shards_per_pass(8, kGiB, 3 * 1024), 3);
}

}  // namespace pass_plan_test
}  // namespace optserve::converter
