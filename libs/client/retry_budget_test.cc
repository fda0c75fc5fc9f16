#include "client/retry_budget.h"

#include <gtest/gtest.h>

namespace optserve::client {
namespace retry_budget_test {

constexpr Instant kStart{seconds(1'000)};

int taken(RetryBudget& budget, Instant now, int tries) {
  int count = 0;
  for (int i = 0; i < tries; ++i) count += budget.take(now);
  return count;
}

TEST(RetryBudget, StartsWithABurst) {
  RetryBudget budget({.share = 0.1, .per_second = 0.2, .burst = 10});
  EXPECT_EQ(taken(budget, kStart, 1'000), 10);
}

TEST(RetryBudget, ATenthOfTheRequestsMayBeRepeated) {
  RetryBudget budget({.share = 0.1, .per_second = 0, .burst = 10});
  taken(budget, kStart, 10);
  int repeated = 0;
  for (int i = 0; i < 1'000; ++i) {
    budget.add_request(kStart);
    repeated += budget.take(kStart);
  }
  EXPECT_GE(repeated, 98);
  EXPECT_LE(repeated, 101);
}

TEST(RetryBudget, AClientWithFewRequestsMayRepeatThemSlowly) {
  RetryBudget budget({.share = 0.1, .per_second = 0.2, .burst = 10});
  taken(budget, kStart, 10);
  EXPECT_FALSE(budget.take(kStart + seconds(4)));
  EXPECT_TRUE(budget.take(kStart + seconds(6)));
  EXPECT_FALSE(budget.take(kStart + seconds(6)));
}

TEST(RetryBudget, SavesUpNoMoreThanABurst) {
  RetryBudget budget({.share = 0.1, .per_second = 0.2, .burst = 10});
  for (int i = 0; i < 10'000; ++i) budget.add_request(kStart);
  EXPECT_EQ(taken(budget, kStart + seconds(100'000), 1'000), 10);
}

}  // namespace retry_budget_test
}  // namespace optserve::client
