#include "client/scheduler_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace optserve::client {
namespace scheduler_choice_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SplitEndpoints, TakesOneOrSeveral) {
  EXPECT_THAT(split_endpoints("tcp://a:1").value(), ElementsAre("tcp://a:1"));
  EXPECT_THAT(split_endpoints("tcp://a:1,tcp://b:2").value(), ElementsAre("tcp://a:1", "tcp://b:2"));
}

TEST(SplitEndpoints, RefusesWhatIsNoList) {
  for (const char* list : {"", ",", "tcp://a:1,", ",tcp://a:1", "a,,b"}) {
    EXPECT_THAT(split_endpoints(list).refusal().message, HasSubstr("found an empty one")) << list;
  }
  EXPECT_THAT(split_endpoints("a,b,a").refusal().message, HasSubstr("a occurs twice"));
  std::string many = "0";
  for (int i = 1; i < 65; ++i) many += "," + std::to_string(i);
  EXPECT_THAT(split_endpoints(many).refusal().message, HasSubstr("at most 64, found 65"));
}

std::vector<std::string> names(const std::vector<std::string>& endpoints, const std::vector<size_t>& order) {
  std::vector<std::string> result;
  for (const size_t i : order) result.push_back(endpoints[i]);
  return result;
}

TEST(SchedulerOrder, IsTheSameForEveryClientAndVersion) {
  const std::vector<std::string> endpoints{"tcp://a:5555", "tcp://b:5555", "tcp://c:5555"};
  const std::vector<std::string> reversed{endpoints.rbegin(), endpoints.rend()};
  for (int i = 0; i < 100; ++i) {
    const std::string key = std::to_string(i);
    EXPECT_EQ(names(endpoints, scheduler_order("t", key, endpoints)),
              names(reversed, scheduler_order("t", key, reversed)));
  }
  // Clients of different versions must agree, so these never change.
  std::string first;
  for (const char* key : {"one", "two", "three", "four", "five", "six", "seven", "eight"}) {
    first += static_cast<char>('a' + scheduler_order("tenant", key, endpoints).front());
  }
  EXPECT_EQ(first, "caccbaaa");
}

TEST(SchedulerOrder, SharesJobsEvenlyAndMovesFewWhenOneIsAdded) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  std::vector<std::string> endpoints;
  for (int i = 0; i < 8; ++i) endpoints.push_back("tcp://10.0.0." + std::to_string(i) + ":5555");
  std::vector<std::string> fewer(endpoints.begin(), endpoints.end() - 1);
  std::vector<int> first(8), second(8);
  constexpr int kJobs = 40'000;
  for (int i = 0; i < kJobs; ++i) {
    const std::string key = std::to_string(random());
    const auto order = scheduler_order("", key, endpoints);
    ++first[order[0]];
    if (order[0] == 0) ++second[order[1]];
    // Only the jobs that the eighth scheduler takes move.
    if (order[0] != 7) {
      ASSERT_EQ(scheduler_order("", key, fewer)[0], order[0]);
    }
  }
  for (const int jobs : first) EXPECT_NEAR(jobs, kJobs / 8, 500);
  // The jobs of a lost scheduler spread over all others.
  for (size_t i = 1; i < 8; ++i) EXPECT_NEAR(second[i], first[0] / 7, 200);
}

TEST(SchedulerOrder, TenantAndKeyDoNotRunTogether) {
  std::vector<std::string> endpoints;
  for (int i = 0; i < 32; ++i) endpoints.push_back(std::to_string(i));
  EXPECT_NE(scheduler_order("ab", "c", endpoints), scheduler_order("a", "bc", endpoints));
}

}  // namespace scheduler_choice_test
}  // namespace optserve::client
