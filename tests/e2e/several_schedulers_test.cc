// Two schedulers share a tokenizer and a worker group. kill -9 of one stops its own queue until it is back, and nothing
// else: every accepted job of both ends exactly once, with the text it has without the fault. If it does not come back,
// its journal is merged into that of the other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <memory>

#include "demo_stack.h"
#include "job_watch.h"
#include "support/demo_model.h"
#include "support/processes.h"

namespace optserve::test_support {
namespace several_schedulers_test {

using std::chrono::seconds;

constexpr size_t kJobs = kSanitized ? 4 : 8;  // of each scheduler
constexpr int kTokens = kSanitized ? 60 : 150;

protocol::JobSpec long_job(size_t index) {
  protocol::JobSpec job = test_support::long_job(index, 2000 + index, kTokens);
  job.max_attempts = 5;
  return job;
}

// A client of one scheduler and what it saw of its jobs.
class Follower {
 public:
  explicit Follower(std::unique_ptr<Client> client) : client_(std::move(client)) {}

  void submit_all() {
    for (size_t i = 0; i < kJobs; ++i) {
      const auto outcome = client_->submit({long_job(i)}, watch_.stream(i));
      ASSERT_TRUE(outcome.ok()) << outcome.refusal().message;
      ASSERT_TRUE(outcome.value()[0].job) << outcome.value()[0].message;
    }
  }
  JobWatch& watch() { return watch_; }
  Client& client() { return *client_; }

 private:
  JobWatch watch_{kJobs};
  std::unique_ptr<Client> client_;  // last: its thread calls the watch
};

TEST(SeveralSchedulers, TheLossOfOneStopsItsOwnQueueUntilItIsBack) {
  DemoStack stack({.schedulers = 2});
  stack.wait_ready();
  std::vector<std::string> expected;
  {
    Follower undisturbed(stack.client(1));
    undisturbed.submit_all();
    ASSERT_TRUE(wait_for([&] { return undisturbed.watch().finished() == kJobs; }, seconds(240)));
    expected = undisturbed.watch().texts();
  }
  Follower first(stack.client(0)), second(stack.client(1));
  first.submit_all();
  second.submit_all();
  ASSERT_TRUE(
      wait_for([&] { return first.watch().pieces() > 3 * kJobs && second.watch().pieces() > 3 * kJobs; }, seconds(60)));
  ASSERT_LT(first.watch().finished(), kJobs) << "the jobs ended before the fault";
  stack.kill_scheduler(0);
  const size_t ended_before = first.watch().finished();

  // The jobs of the other scheduler continue, and it accepts more.
  ASSERT_TRUE(wait_for([&] { return second.watch().finished() == kJobs; }, seconds(180)))
      << second.watch().finished() << " of " << kJobs << " jobs ended";
  second.watch().expect_each_succeeded_once_with(expected);
  const auto another = second.client().generate(greedy_job(demo_goldens().cases.front()));
  ASSERT_TRUE(another.ok()) << another.refusal().message;
  EXPECT_EQ(another.value().text, demo_goldens().cases.front().greedy_text);
  EXPECT_LE(first.watch().finished(), ended_before + 1) << "a killed scheduler finished jobs";

  stack.start_scheduler(0);
  ASSERT_TRUE(wait_for([&] { return first.watch().finished() == kJobs; }, seconds(180)))
      << first.watch().finished() << " of " << kJobs << " jobs ended";
  first.watch().expect_each_succeeded_once_with(expected);
  EXPECT_TRUE(stack.shut_down());
}

// The journal of a killed scheduler is merged into that of the other. The clients of both find all their jobs there, by
// id and by key, and each has run to the text that it has without the fault.
TEST(SeveralSchedulers, TheJobsOfOneThatIsGoneForGoodEndInAnother) {
  DemoStack stack({.schedulers = 2});
  stack.wait_ready();
  std::vector<protocol::JobSpec> jobs;
  std::vector<JobId> ids;
  std::vector<std::string> expected;
  for (size_t i = 0; i < 4; ++i) {
    const auto undisturbed = stack.client(1)->generate(long_job(i));
    ASSERT_TRUE(undisturbed.ok()) << undisturbed.refusal().message;
    expected.push_back(undisturbed.value().text);
    jobs.push_back(long_job(i));
    jobs.back().key = "order-" + std::to_string(i);
  }
  {
    JobWatch running(1);
    const auto client = stack.client(0);
    const auto ended = client->submit({jobs[0]});
    ASSERT_TRUE(ended.ok() && ended.value()[0].job);
    ids.push_back(*ended.value()[0].job);
    ASSERT_TRUE(client->wait(ids[0], seconds(120)).ok());
    for (size_t i = 1; i < jobs.size(); ++i) {
      const auto accepted = i == 1 ? client->submit({jobs[i]}, running.stream(0)) : client->submit({jobs[i]});
      ASSERT_TRUE(accepted.ok() && accepted.value()[0].job);
      ids.push_back(*accepted.value()[0].job);
    }
    ASSERT_TRUE(wait_for([&] { return running.pieces() > 0; }, seconds(60)));
    stack.kill_scheduler(0);
  }
  const std::vector<std::string> merge{"journal", "merge", stack.journal(0), stack.journal(1)};
  const ProgramOutput in_use = run_program("optserve", merge);
  EXPECT_EQ(in_use.status, 1);
  EXPECT_THAT(in_use.err, ::testing::HasSubstr("is held by another process"));
  stack.signal_scheduler(1, SIGTERM);
  EXPECT_EQ(stack.wait_scheduler(1), 0);
  const ProgramOutput merged = run_program("optserve", merge);
  ASSERT_EQ(merged.status, 0) << merged.err;
  EXPECT_THAT(merged.out, ::testing::HasSubstr("0 jobs were in both"));
  stack.start_scheduler(1);

  const auto client = stack.client(1);
  for (size_t i = 0; i < jobs.size(); ++i) {
    const auto again = client->submit({jobs[i]});
    ASSERT_TRUE(again.ok()) << again.refusal().message;
    EXPECT_TRUE(again.value()[0].duplicate);
    EXPECT_EQ(again.value()[0].job, ids[i]);
    const auto result = client->wait(ids[i], seconds(120));
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_EQ(result.value().state, protocol::JobState::kSucceeded) << result.value().message;
    EXPECT_EQ(result.value().text, expected[i]);
  }
  // The emptied queue accepts nothing, if somebody starts it by mistake.
  stack.start_scheduler(0);
  ASSERT_TRUE(wait_for([&] { return stack.client(0)->status(seconds(1)).front().answer.ok(); }, seconds(60)));
  const ProgramOutput refused = run_program("optserve", {"submit", "text", "--model", "demo", "--scheduler",
                                                         stack.client_endpoint(0), "--timeout-ms", "5000"});
  EXPECT_EQ(refused.status, 1) << refused.out;
  EXPECT_THAT(refused.err, ::testing::HasSubstr("draining"));
  EXPECT_TRUE(stack.shut_down());
}

}  // namespace several_schedulers_test
}  // namespace optserve::test_support
