// One group on two hosts, which are two supervisors that meet over loopback.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>

#include "demo_stack.h"
#include "keys/key_files.h"
#include "support/demo_model.h"

namespace optserve::test_support {
namespace hosts_test {

// The ids that one process computes; the goldens hold them.
void expect_golden(const DemoStack& stack, const DemoCase& golden) {
  protocol::JobSpec job = greedy_job(golden);
  job.max_attempts = 5;
  const auto result = stack.client()->generate(job);
  ASSERT_TRUE(result.ok()) << result.refusal().message;
  EXPECT_EQ(result.value().ids, golden.greedy_ids);
  EXPECT_EQ(result.value().text, golden.greedy_text);
}

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void expect_key_used_and_nowhere_shown(const DemoStack& stack) {
  const std::string logs = stack.logs();
  EXPECT_THAT(logs, testing::HasSubstr("encrypted=yes"));
  const auto key = keys::read_secret_key_file(stack.group_key_file());
  ASSERT_TRUE(key.ok()) << key.refusal().message;
  const std::string digits = key.value().text().substr(keys::kSecretPrefix.size(), 32);
  EXPECT_THAT(logs, testing::Not(testing::HasSubstr(digits)));
  for (const int host : {0, 1}) {
    for (const pid_t pid : stack.rank_pids(host)) {
      const std::string process = "/proc/" + std::to_string(pid);
      EXPECT_THAT(text_of(process + "/cmdline"), testing::HasSubstr("--group-key="));
      EXPECT_THAT(text_of(process + "/cmdline") + text_of(process + "/environ"),
                  testing::Not(testing::HasSubstr(digits)));
    }
  }
}

std::vector<pid_t> all_ranks(const DemoStack& stack) {
  std::vector<pid_t> pids = stack.rank_pids(0);
  for (const pid_t pid : stack.rank_pids(1)) pids.push_back(pid);
  return pids;
}

TEST(GroupOnTwoHosts, GeneratesWhatOneProcessGeneratesAndIsReplacedOnBothWhenARankDies) {
  DemoStack stack({.world = 4, .groups = 2, .nodes = 2});
  stack.wait_ready();
  ASSERT_EQ(stack.rank_pids(0).size(), 2u);
  ASSERT_EQ(stack.rank_pids(1).size(), 2u);
  const std::vector<DemoCase>& goldens = demo_goldens().cases;
  expect_golden(stack, goldens.front());
  expect_key_used_and_nowhere_shown(stack);
  // A rank of host 1, then rank 0, to which all others are connected.
  for (const int host : {1, 0}) {
    const std::vector<pid_t> before = all_ranks(stack);
    ASSERT_EQ(before.size(), 4u);
    stack.kill_rank(host, 0);
    const auto all_new = [&] {
      const std::vector<pid_t> now = all_ranks(stack);
      return now.size() == 4 && std::none_of(now.begin(), now.end(), [&](pid_t pid) {
               return std::find(before.begin(), before.end(), pid) != before.end();
             });
    };
    EXPECT_TRUE(wait_for(all_new, std::chrono::seconds(30))) << "ranks of host " << host << " were killed";
    stack.wait_ready();
    expect_golden(stack, goldens.back());
  }
  EXPECT_TRUE(stack.shut_down());
}

}  // namespace hosts_test
}  // namespace optserve::test_support
