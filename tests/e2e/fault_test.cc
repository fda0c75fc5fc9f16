// kill -9 in the middle of 32 streaming jobs (12 under sanitizers): every accepted job ends exactly once, with the same
// text as without the fault.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <iostream>
#include <sstream>

#include "demo_stack.h"
#include "http/http_test_client.h"
#include "job_watch.h"
#include "support/demo_model.h"

namespace optserve::test_support {
namespace fault_test {

using protocol::JobState;
using Clock = std::chrono::steady_clock;
using std::chrono::seconds;

constexpr size_t kJobs = kSanitized ? 12 : 32;
constexpr int kTokens = kSanitized ? 60 : 200;
constexpr seconds kLimit{60};

protocol::JobSpec long_job(size_t index) {
  protocol::JobSpec job = test_support::long_job(index, 1000 + index, kTokens);
  job.max_attempts = 5;
  return job;
}

// The texts without any fault, computed once.
const std::vector<std::string>& expected_texts() {
  static const std::vector<std::string> texts = [] {
    DemoStack stack({.world = 2});
    stack.wait_ready();
    const auto client = stack.client();
    std::vector<protocol::JobSpec> jobs;
    for (size_t i = 0; i < kJobs; ++i) jobs.push_back(long_job(i));
    const auto outcomes = client->submit(jobs);
    std::vector<std::string> loaded;
    for (const auto& outcome : outcomes.value()) {
      loaded.push_back(client->wait(*outcome.job, seconds(240)).value().text);
    }
    return loaded;
  }();
  return texts;
}

class Fault : public ::testing::Test {
 protected:
  void SetUp() override { expected_texts(); }

  // Starts the jobs, waits until they stream, injects the fault, waits for the end, checks the ledger.
  void run_with_fault(DemoStack& stack, const std::function<void()>& fault) {
    JobWatch watch(kJobs);
    const auto client = stack.client();
    for (size_t i = 0; i < kJobs; ++i) {
      const auto outcome = client->submit({long_job(i)}, watch.stream(i));
      ASSERT_TRUE(outcome.ok()) << outcome.refusal().message;
      ASSERT_TRUE(outcome.value()[0].job) << outcome.value()[0].message;
    }
    ASSERT_TRUE(wait_for([&] { return watch.pieces() > 10 * kJobs; }, seconds(60)));
    ASSERT_LT(watch.finished(), kJobs) << "the jobs ended before the fault";
    fault();
    ASSERT_TRUE(wait_for([&] { return watch.finished() == kJobs; }, seconds(180)))
        << watch.finished() << " of " << kJobs << " jobs ended";
    watch.expect_each_succeeded_once_with(expected_texts());
  }

  // The next good request works.
  void check_service(DemoStack& stack) {
    const auto result = stack.client()->generate(greedy_job(demo_goldens().cases.front()));
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_EQ(result.value().text, demo_goldens().cases.front().greedy_text);
  }
};

// The second rank is killed in the group that replaced the first one.
TEST_F(Fault, AKilledRankEndsAndReplacesItsWholeGroup) {
  DemoStack stack({.world = 2});
  stack.wait_ready();
  for (const int rank : {0, 1}) {
    if (kSanitized && rank == 0) continue;
    const auto before = stack.rank_pids(0);
    ASSERT_EQ(before.size(), 2u);
    run_with_fault(stack, [&] { stack.kill_rank(0, rank); });
    const auto after = stack.rank_pids(0);
    ASSERT_EQ(after.size(), 2u);
    for (const pid_t pid : after) {
      EXPECT_EQ(std::count(before.begin(), before.end(), pid), 0) << "a rank survived its group";
    }
    for (const pid_t pid : before) EXPECT_NE(kill(pid, 0), 0) << "pid " << pid << " is still there";
    check_service(stack);
  }
  EXPECT_TRUE(stack.shut_down());
}

TEST_F(Fault, AHungRankIsNoticedAndItsGroupReplaced) {
  DemoStack stack({.world = 2, .worker_arguments = {"--step-deadline-ms=2000"}});
  stack.wait_ready();
  const auto before = stack.rank_pids(0);
  run_with_fault(stack, [&] { stack.stop_rank(0, 1); });
  for (const pid_t pid : before) EXPECT_NE(kill(pid, 0), 0) << "pid " << pid << " is still there";
  EXPECT_TRUE(stack.shut_down());
}

TEST_F(Fault, WithTwoGroupsTheOtherOneTakesOver) {
  DemoStack stack({.world = 1, .groups = 2});
  stack.wait_ready();
  run_with_fault(stack, [&] { stack.kill_rank(1, 0); });
  EXPECT_TRUE(stack.shut_down());
}

TEST_F(Fault, AKilledTokenizerIsReplaced) {
  DemoStack stack({.world = 2});
  stack.wait_ready();
  run_with_fault(stack, [&] { stack.replace_tokenizer(0); });
  check_service(stack);
  EXPECT_TRUE(stack.shut_down());
}

TEST_F(Fault, AKilledSchedulerComesBackWithEveryAcceptedJob) {
  DemoStack stack({.world = 2});
  stack.wait_ready();
  run_with_fault(stack, [&] { stack.replace_scheduler(); });
  check_service(stack);
  EXPECT_TRUE(stack.shut_down());
}

// The client runs in a child process that is killed; its jobs end all the same, and their results are fetched by key.
TEST_F(Fault, AKilledClientLosesNoJob) {
  DemoStack stack({.world = 2});
  stack.wait_ready();
  const std::string prefix = "killed-client-";
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    JobWatch watch(kJobs);
    const auto client = stack.client();
    for (size_t i = 0; i < kJobs; ++i) {
      auto job = long_job(i);
      job.key = prefix + std::to_string(i);
      if (!client->submit({job}, watch.stream(i)).ok()) _exit(1);
    }
    wait_for([&] { return watch.pieces() > 5 * kJobs; }, seconds(60));
    raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  const auto client = stack.client();
  for (size_t i = 0; i < kJobs; ++i) {
    auto job = long_job(i);
    job.key = prefix + std::to_string(i);
    const auto outcome = client->submit({job});
    ASSERT_TRUE(outcome.ok() && outcome.value()[0].job);
    EXPECT_TRUE(outcome.value()[0].duplicate) << "job " << i << " was run again";
    const auto result = client->wait(*outcome.value()[0].job, seconds(120));
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_EQ(result.value().state, JobState::kSucceeded);
    EXPECT_EQ(result.value().text, expected_texts()[i]);
  }
  EXPECT_TRUE(stack.shut_down());
}

// The scheduler learns of each kind of process that is killed from the connection that the kernel closes, not from
// silence, and gives the jobs to another group. Prints times; --gtest_repeat=20 gives enough of them for a median.
class Losses : public ::testing::Test {
 protected:
  // How many lines of the logs have all of these words.
  size_t lines_with(const std::vector<std::string>& words) const {
    std::istringstream log(stack_.logs());
    size_t count = 0;
    for (std::string line; std::getline(log, line);) {
      count += std::all_of(words.begin(), words.end(),
                           [&](const std::string& word) { return line.find(word) != std::string::npos; });
    }
    return count;
  }

  // Waits until a line with these words has come since `before` lines, and prints the time since `begin`.
  void expect_line(const std::string& what, const std::vector<std::string>& words, size_t before,
                   Clock::time_point begin) {
    ASSERT_TRUE(wait_for([&] { return lines_with(words) > before; }, kLimit)) << what;
    std::cout << what << " after "
              << std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begin).count() << " ms\n";
  }

  // A service is killed that runs nothing, or nothing that can be seen from outside.
  void expect_known(const std::string& kind, const std::function<void()>& kill) {
    const std::vector<std::string> lost = {"service_lost", "kind=" + kind, "its connection ended"};
    const size_t before = lines_with(lost);
    const auto begin = Clock::now();
    kill();
    expect_line(kind + " known", lost, before, begin);
  }

  // A group is killed while it runs jobs: all of them succeed, on the other group.
  void expect_moved(const std::string& what, const std::function<void()>& kill) {
    const std::vector<std::string> lost = {"service_lost", "kind=worker", "its connection ended"},
                                   moved = {"job_leased", "attempt=2"};
    JobWatch watch(kJobs);
    const auto client = stack_.client();
    for (size_t i = 0; i < kJobs; ++i) {
      auto job = long_job(i);
      job.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";  // so that its leases are logged
      ASSERT_TRUE(client->submit({job}, watch.stream(i)).ok());
    }
    ASSERT_TRUE(wait_for([&] { return watch.pieces() > kJobs; }, kLimit));
    const size_t lost_before = lines_with(lost), moved_before = lines_with(moved);
    const auto begin = Clock::now();
    kill();
    expect_line(what + " known", lost, lost_before, begin);
    expect_line(what + ", jobs elsewhere", moved, moved_before, begin);
    ASSERT_TRUE(wait_for([&] { return watch.finished() == kJobs; }, 3 * kLimit)) << watch.finished();
    watch.expect_each_succeeded_once_with(expected_texts());
  }

  // A gateway is killed while it streams to somebody.
  void expect_gateway_known() {
    http::TestClient client(stack_.gateway_port());
    const std::string body =
        R"({"model":"demo","prompt":"Once","max_tokens":)" + std::to_string(kTokens) + R"(,"n":8,"stream":true})";
    ASSERT_TRUE(
        client.write("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                     "Content-Length: " +
                     std::to_string(body.size()) + "\r\n\r\n" + body));
    ASSERT_NE(client.read_some(1), "");
    const std::vector<std::string> lost = {"client_lost"};
    const size_t before = lines_with(lost);
    const auto begin = Clock::now();
    stack_.end_gateway(0, SIGKILL);
    expect_line("gateway known", lost, before, begin);
    stack_.start_gateway(0);
  }

  DemoStack stack_{{.world = 2, .groups = 2, .tokenizers = 2, .converters = 1, .gateways = 1}};
};

TEST_F(Losses, AreKnownFromTheEndOfAConnection) {
  stack_.wait_ready();
  expect_gateway_known();
  expect_known("tokenizer", [&] { stack_.replace_tokenizer(0); });
  expect_known("converter", [&] { stack_.kill_converter(0); });
  stack_.start_converter(0);
  expect_moved("rank", [&] { stack_.kill_rank(0, 1); });
  ASSERT_TRUE(wait_for([&] { return stack_.rank_pids(0).size() == 2; }, kLimit));
  stack_.wait_ready();
  expect_moved("supervisor", [&] { stack_.replace_supervisor(1); });
}

}  // namespace fault_test
}  // namespace optserve::test_support
