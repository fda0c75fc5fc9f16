#include "transport/capacity_split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>

namespace optserve::transport {
namespace capacity_split_test {

using ::testing::Each;
using ::testing::ElementsAre;

using Demands = std::vector<CapacityDemand>;

CapacityDemand idle() { return {true, 0, 0}; }
CapacityDemand busy(int64_t waiting = 1'000, int32_t held = 0) { return {true, held, waiting}; }

std::vector<int32_t> shares_of(const CapacitySplit& split, size_t schedulers) {
  std::vector<int32_t> shares;
  for (size_t i = 0; i < schedulers; ++i) shares.push_back(split.share(i));
  return shares;
}

std::vector<int32_t> after_updates(CapacitySplit& split, const Demands& demands, int updates = 20) {
  for (int i = 0; i < updates; ++i) split.update(demands);
  return shares_of(split, demands.size());
}

int64_t sum(const std::vector<int32_t>& values) { return std::accumulate(values.begin(), values.end(), int64_t{0}); }

TEST(CapacitySplit, OneSchedulerHasAllAtOnce) {
  CapacitySplit split(80, 1);
  EXPECT_EQ(split.share(0), 0);
  split.update({idle()});
  EXPECT_EQ(split.share(0), 80);
  split.update({busy()});
  EXPECT_EQ(split.share(0), 80);
}

TEST(CapacitySplit, EqualQueuesShareEqually) {
  CapacitySplit split(80, 2);
  EXPECT_THAT(after_updates(split, {idle(), idle()}), ElementsAre(40, 40));
  EXPECT_THAT(after_updates(split, {busy(500), busy(500)}), ElementsAre(40, 40));
}

TEST(CapacitySplit, AnIdleShareIsLentToWhereWorkWaits) {
  CapacitySplit split(80, 2);
  after_updates(split, {idle(), idle()});
  split.update({busy(), idle()});
  EXPECT_THAT(shares_of(split, 2), ElementsAre(59, 21));  // half of the way
  EXPECT_THAT(after_updates(split, {busy(), idle()}), ElementsAre(78, 2));
  EXPECT_THAT(after_updates(split, {busy(), busy()}), ElementsAre(40, 40));
}

TEST(CapacitySplit, LongQueuesGetMoreSoThatAllWaitEqually) {
  CapacitySplit split(102, 2);
  EXPECT_THAT(after_updates(split, {busy(9'003), busy(1'003)}), ElementsAre(87 + 3, 9 + 3));
}

TEST(CapacitySplit, ASmallQueueGetsAllItAsksForWhenThereIsRoom) {
  CapacitySplit split(80, 2);
  EXPECT_THAT(after_updates(split, {busy(30), busy(10)}), ElementsAre(30 + 20, 10 + 20));
}

TEST(CapacitySplit, TheShareOfALostSchedulerGoesToTheOthers) {
  CapacitySplit split(80, 3);
  after_updates(split, {busy(), busy(), busy()});
  split.update({busy(), {}, busy()});
  EXPECT_THAT(shares_of(split, 3), ElementsAre(40, 0, 40));
  split.update({{}, {}, busy()});
  EXPECT_THAT(shares_of(split, 3), ElementsAre(0, 0, 80));
}

TEST(CapacitySplit, OneThatComesGetsItsFloorAtOnceFromTheOthers) {
  CapacitySplit split(80, 2);
  split.update({busy(), {}});
  split.update({busy(900, 80), busy()});
  EXPECT_EQ(split.share(1), CapacitySplit::floor(80, 2));
  EXPECT_LE(split.share(0) + split.share(1), 80);
}

TEST(CapacitySplit, LeasesThatRunToTheirEndAreNotGivenOutTwice) {
  CapacitySplit split(80, 2);
  split.update({busy(900, 0), {}});
  EXPECT_THAT(after_updates(split, {busy(900, 80), busy(900)}), ElementsAre(42, 2));
  split.update({busy(900, 70), busy(900, 2)});  // ten have ended
  EXPECT_EQ(split.share(1), 10);
  EXPECT_THAT(after_updates(split, {busy(900, 40), busy(900, 40)}), ElementsAre(40, 40));
}

TEST(CapacitySplit, FloorsAreSmallAndNeverNothing) {
  for (const int32_t total : {1, 2, 5, 80, 5'120}) {
    for (size_t schedulers = 1; schedulers <= 16; ++schedulers) {
      const int32_t floor = CapacitySplit::floor(total, schedulers);
      EXPECT_GE(floor, 1);
      const auto all = floor * static_cast<int32_t>(schedulers);
      EXPECT_LE(all, std::max(total / 16, static_cast<int32_t>(schedulers)));
    }
  }
  CapacitySplit split(1, 3);
  EXPECT_THAT(after_updates(split, {busy(), idle(), busy(3)}), Each(1));
}

TEST(CapacitySplit, NumbersOutOfAllReasonAreBounded) {
  CapacitySplit split(80, 2);
  const int64_t most = std::numeric_limits<int64_t>::max();
  EXPECT_THAT(after_updates(split, {busy(most), busy(-most)}), ElementsAre(78, 2));
}

// With queues that empty and fill in turn, no share goes through the whole range each second.
TEST(CapacitySplit, TossedQueuesDoNotTossTheGroup) {
  CapacitySplit split(80, 2);
  after_updates(split, {busy(), idle()});
  for (int second = 0; second < 40; ++second) {
    const int32_t before = split.share(0);
    split.update(second % 2 == 0 ? Demands{idle(), busy()} : Demands{busy(), idle()});
    if (second < 10) continue;  // it has come to its middle
    EXPECT_LE(std::abs(split.share(0) - before), 27);
    EXPECT_GE(split.share(0), 20);
    EXPECT_LE(split.share(0), 60);
  }
}

class CapacityProperties : public ::testing::Test {
 protected:
  CapacityProperties() { std::printf("seed %u\n", seed_); }

  int32_t number(int64_t max) { return static_cast<int32_t>(random_() % static_cast<uint64_t>(max + 1)); }
  Demands random_demands(size_t schedulers, int32_t total) {
    Demands demands(schedulers);
    for (CapacityDemand& demand : demands) {
      if (random_() % 4 == 0) continue;  // not registered
      demand.registered = true;
      demand.held = random_() % 2 == 0 ? 0 : number(total);
      demand.waiting = random_() % 2 == 0 ? 0 : number(random_() % 2 == 0 ? total : 100'000);
    }
    return demands;
  }

  const uint32_t seed_ = std::random_device{}();
  std::mt19937_64 random_{seed_};
};

void expect_invariants(const CapacitySplit& split, const Demands& demands, int32_t total) {
  size_t registered = 0;
  for (const CapacityDemand& demand : demands) registered += demand.registered;
  const int32_t floor = CapacitySplit::floor(total, registered);
  const int64_t floors = static_cast<int64_t>(registered) * floor;
  ASSERT_LE(sum(shares_of(split, demands.size())), std::max<int64_t>(total, floors));
  for (size_t i = 0; i < demands.size(); ++i) {
    if (demands[i].registered) {
      ASSERT_GE(split.share(i), floor);
    } else {
      ASSERT_EQ(split.share(i), 0);
    }
  }
}

TEST_F(CapacityProperties, HoldInEveryHistory) {
  for (int run = 0; run < 3'000; ++run) {
    const size_t schedulers = 1 + random_() % 16;
    const int32_t total = 1 + number(random_() % 2 == 0 ? 20 : 5'000);
    CapacitySplit split(total, schedulers);
    for (int update = 0; update < 20; ++update) {
      const Demands demands = random_demands(schedulers, total);
      const auto before = shares_of(split, schedulers);
      split.update(demands);
      expect_invariants(split, demands, total);
      // What is newly granted is not held by another scheduler.
      int64_t used = 0;
      bool grew = false;
      const auto registered = std::count_if(demands.begin(), demands.end(), [](const auto& d) { return d.registered; });
      const int32_t floor = CapacitySplit::floor(total, static_cast<size_t>(registered));
      for (size_t i = 0; i < schedulers; ++i) {
        used += std::max(split.share(i), demands[i].held);
        grew |= split.share(i) > std::max({before[i], demands[i].held, floor});
      }
      if (grew) {
        ASSERT_LE(used, total);
      }
    }
  }
}

// While nothing changes, each share goes directly to its target and stays there, and the whole group is granted.
TEST_F(CapacityProperties, SharesSettleWithoutSwinging) {
  for (int run = 0; run < 3'000; ++run) {
    const size_t schedulers = 1 + random_() % 8;
    const int32_t total = static_cast<int32_t>(schedulers) + number(500);
    CapacitySplit split(total, schedulers);
    split.update(random_demands(schedulers, total));
    Demands demands = random_demands(schedulers, total);
    for (CapacityDemand& demand : demands) demand.held = 0;
    const auto target = CapacitySplit::target(total, demands);
    split.update(demands);  // floors of those that came, nothing of those that went
    for (int update = 0; update < 12; ++update) {
      const auto before = shares_of(split, schedulers);
      split.update(demands);
      for (size_t i = 0; i < schedulers; ++i) {
        ASSERT_LE(std::abs(split.share(i) - target[i]), std::abs(before[i] - target[i]));
        ASSERT_GE((split.share(i) - target[i]) * (before[i] - target[i]), 0) << "beyond the target";
      }
    }
    ASSERT_EQ(shares_of(split, schedulers), target);
    const bool any = std::any_of(demands.begin(), demands.end(), [](const auto& demand) { return demand.registered; });
    ASSERT_EQ(sum(target), any ? total : 0);
  }
}

// In the end all jobs of the smallest queue are started, whatever the others ask for.
TEST_F(CapacityProperties, NobodyStarves) {
  for (int run = 0; run < 200; ++run) {
    const size_t schedulers = 2 + random_() % 8;
    const int32_t total = 1 + number(100);
    CapacitySplit split(total, schedulers);
    std::vector<int32_t> held(schedulers);
    int64_t left = 50;
    int seconds = 0;
    for (; left > 0 && seconds < 1'000; ++seconds) {
      Demands demands;
      for (size_t i = 0; i < schedulers; ++i) demands.push_back(busy(i == 0 ? left : 100'000, held[i]));
      split.update(demands);
      for (size_t i = 0; i < schedulers; ++i) {
        held[i] -= std::min(held[i], 1 + held[i] / 3);  // jobs end
        const auto started =
            static_cast<int32_t>(std::min<int64_t>(std::max(0, split.share(i) - held[i]), i == 0 ? left : 100'000));
        held[i] += started;
        if (i == 0) left -= started;
      }
    }
    ASSERT_EQ(left, 0);
    ASSERT_LE(seconds, 60);
  }
}

}  // namespace capacity_split_test
}  // namespace optserve::transport
