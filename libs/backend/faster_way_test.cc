#include "backend/faster_way.h"

#include <gtest/gtest.h>

namespace optserve::backend {
namespace faster_way_test {

// Does `count` runs with these times of the two ways. Returns how many runs took the second way.
int run(FasterWay& way, int count, double first_ms, double second_ms) {
  int second = 0;
  for (int i = 0; i < count; ++i) {
    const FasterWay::Run next = way.next();
    second += next.takes_second ? 1 : 0;
    if (next.wants_time) way.took(next.takes_second ? second_ms : first_ms);
  }
  return second;
}

constexpr int kCompared = 2 * FasterWay::kTimes;

TEST(FasterWay, TakesTheSecondWayWhereItIsFaster) {
  FasterWay way;
  EXPECT_EQ(run(way, kCompared, 1.0, 0.9), FasterWay::kTimes);
  EXPECT_EQ(run(way, FasterWay::kRunsBetween, 1.0, 0.9), FasterWay::kRunsBetween);
}

TEST(FasterWay, StaysWithTheFirstWhereTheSecondGainsNextToNothing) {
  FasterWay way;
  run(way, kCompared, 1.0, 0.995);
  EXPECT_EQ(run(way, FasterWay::kRunsBetween, 1.0, 0.995), 0);
}

TEST(FasterWay, ComparesAgain) {
  FasterWay way;
  run(way, kCompared + FasterWay::kRunsBetween, 1.0, 1.2);
  EXPECT_EQ(run(way, kCompared, 1.0, 0.5), FasterWay::kTimes);
  EXPECT_EQ(run(way, FasterWay::kRunsBetween, 1.0, 0.5), FasterWay::kRunsBetween);
  EXPECT_EQ(run(way, kCompared, 1.0, 1.1), FasterWay::kTimes);
  EXPECT_EQ(run(way, FasterWay::kRunsBetween, 1.0, 1.1), 0);
}

TEST(FasterWay, OneSlowRunDecidesNothing) {
  FasterWay way;
  ASSERT_FALSE(way.next().takes_second);
  way.took(100.0);
  run(way, kCompared - 1, 1.0, 1.1);
  EXPECT_EQ(run(way, FasterWay::kRunsBetween, 1.0, 1.1), 0);
}

// The times of runs on a device become known after later runs have begun.
TEST(FasterWay, KeepsItsWayUntilTheTimeIsKnown) {
  FasterWay way;
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(way.next().takes_second);
  way.took(1.0);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(way.next().takes_second);
}

}  // namespace faster_way_test
}  // namespace optserve::backend
