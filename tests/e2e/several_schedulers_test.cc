// Two schedulers share a tokenizer and a worker group. kill -9 of one stops its own queue until it is back, and nothing
// else: every accepted job of both ends exactly once, with the text it has without the fault.
#include <gtest/gtest.h>

#include <memory>

#include "demo_stack.h"
#include "job_watch.h"
#include "support/demo_model.h"

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

}  // namespace several_schedulers_test
}  // namespace optserve::test_support
