// The order of jobs within a model, and what one decision costs.
#include "scheduler/queue/fair_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>

namespace optserve::scheduler {
namespace fair_queue_test {

class FairQueueTest : public ::testing::Test {
 protected:
  Job& job(const std::string& tenant, int32_t priority = 0, int64_t cost = 100) {
    auto owned = std::make_unique<Job>();
    owned->order = ++orders_;
    owned->spec().tenant = tenant;
    owned->spec().priority = priority;
    owned->slot.cost = cost;
    owned->slot.hurry_at = now + seconds(300);
    jobs_.push_back(std::move(owned));
    return *jobs_.back();
  }
  Job& push(const std::string& tenant, int32_t priority = 0, int64_t cost = 100) {
    Job& added = job(tenant, priority, cost);
    queue.push(added);
    return added;
  }
  Job* take() {
    return queue.take(now, [](const Job&) { return FairQueue::Verdict::kTake; });
  }
  std::string take_tenants(size_t count) {
    std::string tenants;
    for (size_t i = 0; i < count; ++i) {
      const Job* taken = take();
      tenants += taken == nullptr ? "-" : taken->spec().tenant;
    }
    return tenants;
  }

  const Instant now{seconds(1'000)};
  TenantWeights weights = TenantWeights::parse("w=3").value();
  FairQueue queue{weights};
  std::vector<std::unique_ptr<Job>> jobs_;
  uint64_t orders_ = 0;
};

TEST_F(FairQueueTest, PriorityThenOrder) {
  Job& low = push("a", 0);
  Job& first = push("a", 5);
  Job& second = push("a", 5);
  EXPECT_EQ(take(), &first);
  EXPECT_EQ(take(), &second);
  EXPECT_EQ(take(), &low);
  EXPECT_EQ(take(), nullptr);
}

TEST_F(FairQueueTest, KnowsTheOldestJobOfAllTenantsAndPriorities) {
  EXPECT_EQ(queue.oldest(), nullptr);
  Job& expected = job("c");
  queue.expect(expected);
  Job& low = push("a", 0);
  Job& high = push("b", 5);
  EXPECT_EQ(queue.oldest(), &expected);  // its prompt has no ids yet, but it waits too
  queue.leave(expected);
  EXPECT_EQ(queue.oldest(), &low);
  EXPECT_EQ(take(), &high);
  EXPECT_EQ(take(), &low);
  EXPECT_EQ(queue.oldest(), nullptr);
}

TEST_F(FairQueueTest, ARetryKeepsItsPlace) {
  Job& first = push("a");
  Job& second = push("a");
  EXPECT_EQ(take(), &first);
  queue.push(first);
  EXPECT_EQ(take(), &first);
  EXPECT_EQ(take(), &second);
}

TEST_F(FairQueueTest, OneJobIsNotDelayedByAHundredThousandOfAnotherTenant) {
  for (int i = 0; i < 100'000; ++i) push("a");
  take_tenants(50);
  push("b");
  EXPECT_EQ(take_tenants(2).find('b') != std::string::npos, true);
}

TEST_F(FairQueueTest, TenantsShareByWeightInTokensNotInJobs) {
  for (int i = 0; i < 1'000; ++i) {
    push("a", 0, 50);   // small jobs
    push("b", 0, 200);  // large ones
    push("w", 0, 100);  // three shares
  }
  std::map<std::string, int64_t> tokens;
  for (int i = 0; i < 500; ++i) {
    const Job* taken = take();
    tokens[taken->spec().tenant] += taken->slot.cost;
  }
  const double all = static_cast<double>(tokens["a"] + tokens["b"] + tokens["w"]);
  EXPECT_NEAR(static_cast<double>(tokens["a"]) / all, 0.2, 0.02);
  EXPECT_NEAR(static_cast<double>(tokens["b"]) / all, 0.2, 0.02);
  EXPECT_NEAR(static_cast<double>(tokens["w"]) / all, 0.6, 0.02);
}

TEST_F(FairQueueTest, IdleTimeIsNotSavedUp) {
  for (int i = 0; i < 100; ++i) push("a");
  take_tenants(50);
  for (int i = 0; i < 100; ++i) push("b");
  EXPECT_EQ(take_tenants(6).find("bbb"), std::string::npos);
}

TEST_F(FairQueueTest, WhatATenantUsedUpIsRememberedWhileItHasNoJob) {
  for (int i = 0; i < 10; ++i) push("a");
  push("b", 0, 400);
  EXPECT_EQ(take_tenants(2), "ab");
  push("b", 0, 400);  // comes back at once: not before the others had their share
  EXPECT_EQ(take_tenants(4).substr(0, 3), "aaa");
}

TEST_F(FairQueueTest, NewestFirstWithinATenantWhoseOldestIsLate) {
  Job& oldest = push("a");
  Job& middle = push("a");
  Job& newest = push("a");
  Job& other = push("b");
  Job& other_newer = push("b");
  oldest.slot.hurry_at = now;
  EXPECT_EQ(queue.ahead_of(newest, now).jobs, 0u);
  EXPECT_EQ(take(), &newest);
  EXPECT_EQ(take(), &other);  // not late: in order
  EXPECT_EQ(take(), &middle);
  EXPECT_EQ(take(), &other_newer);
  EXPECT_EQ(take(), &oldest);
}

TEST_F(FairQueueTest, SkippedJobsLetOthersPassAndTheSearchIsBounded) {
  for (int i = 0; i < 200; ++i) push("a");
  Job& other = push("b");
  const auto wants_b = [](const Job& job) {
    return job.spec().tenant == "b" ? FairQueue::Verdict::kTake : FairQueue::Verdict::kSkip;
  };
  EXPECT_EQ(queue.take(now, wants_b), &other);
  const uint64_t before = queue.looked_at();
  EXPECT_EQ(queue.take(now, wants_b), nullptr);
  EXPECT_LE(queue.looked_at() - before, 64u);
  EXPECT_EQ(queue.take(now, [](const Job&) { return FairQueue::Verdict::kStop; }), nullptr);
  EXPECT_EQ(queue.waiting(), 200u);
}

TEST_F(FairQueueTest, AHeldTenantIsNotLookedAtUntilItIsReleasedAndThenWaitsForItsTurn) {
  for (int i = 0; i < 3; ++i) push("a"), push("b"), push("c");
  push("a", 5);
  const auto holds_a = [](const Job& job) {
    return job.spec().tenant == "a" ? FairQueue::Verdict::kHold : FairQueue::Verdict::kTake;
  };
  EXPECT_EQ(queue.take(now, holds_a)->spec().tenant, "b");
  const uint64_t before = queue.looked_at();
  push("a");  // nothing changes
  EXPECT_EQ(take_tenants(3), "cbc");
  EXPECT_EQ(queue.looked_at() - before, 3u);
  queue.leave(push("a"));
  EXPECT_EQ(queue.waiting(), 7u);
  queue.release("a");
  EXPECT_EQ(take()->spec().priority, 5);
  EXPECT_EQ(take_tenants(7), "aabcaa-") << "its turn is the present one, and not that of the time before";
}

TEST_F(FairQueueTest, HeldTenantsAreNoPartOfWhatOneSearchMayLookAt) {
  for (int i = 0; i < 200; ++i) push("t" + std::to_string(i));
  Job& last = push("last");
  EXPECT_EQ(
      queue.take(now,
                 [&](const Job& job) { return &job == &last ? FairQueue::Verdict::kTake : FairQueue::Verdict::kHold; }),
      &last);
}

TEST_F(FairQueueTest, ExpectedJobsCountAndLeave) {
  Job& first = job("a", 0, 100);
  queue.expect(first);
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.tokens(), 100);
  EXPECT_EQ(queue.tokens_of("a"), 100);
  EXPECT_EQ(queue.ahead_of_new("a", 0).jobs, 1u);
  first.slot.cost = 150;  // the prompt has ids
  queue.push(first);
  EXPECT_EQ(queue.tokens(), 150);
  queue.leave(first);
  queue.leave(first);
  EXPECT_EQ(queue.tokens(), 0);
  EXPECT_EQ(queue.size(), 0u);
}

TEST_F(FairQueueTest, ThePlaceOfAJobIsAboutWhatStartsBeforeIt) {
  for (int i = 0; i < 90; ++i) push("a");
  for (int i = 0; i < 10; ++i) push("b");
  Job& high = push("c", 1);
  Job& last_of_b = push("b");
  const auto ahead = queue.ahead_of(last_of_b, now);
  EXPECT_EQ(queue.ahead_of(high, now).jobs, 0u);
  size_t started = 0;
  for (const Job* taken = take(); taken != &last_of_b; taken = take()) ++started;
  EXPECT_NEAR(static_cast<double>(ahead.jobs), static_cast<double>(started), 2);
  EXPECT_NEAR(static_cast<double>(ahead.tokens), 100.0 * static_cast<double>(started), 200);
}

TEST_F(FairQueueTest, TheFirstJobsAreNearTheOrderOfStart) {
  for (int i = 0; i < 50; ++i) push("a"), push("b"), push("c", 2);
  std::vector<const Job*> first;
  queue.for_first(80, now, [&](const Job& seen) { first.push_back(&seen); });
  ASSERT_EQ(first.size(), 80u);
  for (size_t i = 0; i < 50; ++i) EXPECT_EQ(first[i]->spec().tenant, "c");
  for (const Job* expected : first) {
    const Job* taken = take();
    EXPECT_EQ(taken->spec().priority, expected->spec().priority);
  }
}

// Compared with a naive model: the same jobs come out, counters agree, and nothing is remembered forever.
TEST_F(FairQueueTest, RandomWorkKeepsItsCounts) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::map<uint64_t, Job*> inside;
  int64_t tokens = 0;
  for (int step = 0; step < 20'000; ++step) {
    const auto dice = random() % 10;
    if (dice < 4) {
      Job& added = job(std::string(1, static_cast<char>('a' + random() % 20)), static_cast<int32_t>(random() % 10),
                       1 + static_cast<int64_t>(random() % 1'000));
      if (random() % 4 == 0) {
        queue.expect(added);
      } else {
        queue.push(added);
      }
      inside[added.order] = &added;
      tokens += added.slot.cost;
    } else if (dice < 8) {
      if (const Job* taken = take()) {
        EXPECT_EQ(inside.erase(taken->order), 1u);
        tokens -= taken->slot.cost;
      }
    } else if (!inside.empty()) {
      auto any = inside.lower_bound(random() % orders_);
      if (any == inside.end()) any = inside.begin();
      tokens -= any->second->slot.cost;
      queue.leave(*any->second);
      inside.erase(any);
    }
    ASSERT_EQ(queue.size(), inside.size());
    ASSERT_EQ(queue.tokens(), tokens);
  }
  for (auto& [order, left] : inside) queue.leave(*left);
  EXPECT_EQ(queue.tokens(), 0);
  EXPECT_TRUE(queue.empty());
}

TEST_F(FairQueueTest, TenantsWithoutJobsAreForgotten) {
  for (int i = 0; i < 30'000; ++i) {
    push("tenant-" + std::to_string(i));
    take();
  }
  EXPECT_LE(queue.flows(), 10'001u);
  push("x", 0, 1);
  for (int i = 0; i < 300; ++i) push("x"), take();
  EXPECT_LE(queue.flows(), 10'001u);
}

TEST(TenantWeightsTest, ReadsNamesAndNumbersAndRefusesTheRest) {
  const auto weights = TenantWeights::parse("name=2,other=0.5,=3").value();
  EXPECT_EQ(weights.of("name"), 2);
  EXPECT_EQ(weights.of("other"), 0.5);
  EXPECT_EQ(weights.of(""), 3);
  EXPECT_EQ(weights.of("stranger"), 1);
  EXPECT_EQ(TenantWeights::parse("").value().of("name"), 1);
  for (const char* wrong : {"name", "name=", "name=x", "name=0", "name=-1", "name=nan", "a=1,a=2", "a=1,,b=2"}) {
    EXPECT_FALSE(TenantWeights::parse(wrong).ok()) << wrong;
  }
}

}  // namespace fair_queue_test
}  // namespace optserve::scheduler
