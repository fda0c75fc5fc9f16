// Two schedulers share a tokenizer and a worker group. kill -9 of one stops its own queue until it is back, and nothing
// else: every accepted job of both ends exactly once, with the text it has without the fault.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "demo_stack.h"
#include "support/demo_model.h"

namespace optserve::test_support {
namespace several_schedulers_test {

using protocol::JobState;
using std::chrono::seconds;

constexpr size_t kJobs = kSanitized ? 4 : 8;  // of each scheduler
constexpr int kTokens = kSanitized ? 60 : 150;

protocol::JobSpec long_job(size_t index) {
  protocol::JobSpec job = greedy_job(demo_goldens().cases[index % demo_goldens().cases.size()]);
  job.sampling.temperature = 0.8f;
  job.sampling.seed = 2000 + index;
  job.sampling.ignore_eos = true;
  job.max_new_tokens = kTokens;
  job.max_attempts = 5;
  return job;
}

bool wait_for(const std::function<bool()>& condition, seconds limit) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

// A client of one scheduler and what it saw of its jobs.
class Follower {
 public:
  explicit Follower(std::unique_ptr<Client> client) : client_(std::move(client)) {}

  void submit_all() {
    for (size_t i = 0; i < kJobs; ++i) {
      const auto outcome = client_->submit({long_job(i)}, stream(i));
      ASSERT_TRUE(outcome.ok()) << outcome.refusal().message;
      ASSERT_TRUE(outcome.value()[0].job) << outcome.value()[0].message;
    }
  }
  size_t pieces() const { return pieces_; }
  size_t finished() const { return finished_; }
  std::vector<std::string> texts() {
    const std::lock_guard lock(mutex_);
    return texts_;
  }
  void expect_each_ended_once_with(const std::vector<std::string>& expected) {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < kJobs; ++i) {
      SCOPED_TRACE("job " + std::to_string(i) + ": " + messages_[i]);
      EXPECT_EQ(ends_[i], 1);
      EXPECT_EQ(states_[i], JobState::kSucceeded);
      EXPECT_EQ(texts_[i], expected[i]);
      EXPECT_EQ(streamed_[i], expected[i]);
    }
  }
  Client& client() { return *client_; }

 private:
  JobStream stream(size_t index) {
    return {.on_text =
                [this, index](std::string_view piece, const protocol::JobEvent&) {
                  const std::lock_guard lock(mutex_);
                  streamed_[index] += piece;
                  ++pieces_;
                },
            .on_finished =
                [this, index](const protocol::JobResult& result) {
                  const std::lock_guard lock(mutex_);
                  ++ends_[index];
                  texts_[index] = result.text;
                  states_[index] = result.state;
                  messages_[index] = result.message;
                  ++finished_;
                },
            .on_lost =
                [this, index](const Refusal& why) {
                  const std::lock_guard lock(mutex_);
                  messages_[index] = "lost: " + why.message;
                  ++finished_;
                }};
  }

  std::mutex mutex_;
  std::array<std::string, kJobs> streamed_, messages_;
  std::vector<std::string> texts_ = std::vector<std::string>(kJobs);
  std::array<int, kJobs> ends_{};
  std::array<JobState, kJobs> states_{};
  std::atomic<size_t> pieces_{0}, finished_{0};
  std::unique_ptr<Client> client_;  // last: its thread calls what is above
};

TEST(SeveralSchedulers, TheLossOfOneStopsItsOwnQueueUntilItIsBack) {
  DemoStack stack({.schedulers = 2});
  stack.wait_ready();
  std::vector<std::string> expected;
  {
    Follower undisturbed(stack.client(1));
    undisturbed.submit_all();
    ASSERT_TRUE(wait_for([&] { return undisturbed.finished() == kJobs; }, seconds(240)));
    expected = undisturbed.texts();
  }
  Follower first(stack.client(0)), second(stack.client(1));
  first.submit_all();
  second.submit_all();
  ASSERT_TRUE(wait_for([&] { return first.pieces() > 3 * kJobs && second.pieces() > 3 * kJobs; }, seconds(60)));
  ASSERT_LT(first.finished(), kJobs) << "the jobs ended before the fault";
  stack.kill_scheduler(0);
  const size_t ended_before = first.finished();

  // The other's jobs go on, and it takes more.
  ASSERT_TRUE(wait_for([&] { return second.finished() == kJobs; }, seconds(180)))
      << second.finished() << " of " << kJobs << " jobs ended";
  second.expect_each_ended_once_with(expected);
  const auto another = second.client().generate(greedy_job(demo_goldens().cases.front()));
  ASSERT_TRUE(another.ok()) << another.refusal().message;
  EXPECT_EQ(another.value().text, demo_goldens().cases.front().greedy_text);
  EXPECT_LE(first.finished(), ended_before + 1) << "a killed scheduler finished jobs";

  stack.start_scheduler(0);
  ASSERT_TRUE(wait_for([&] { return first.finished() == kJobs; }, seconds(180)))
      << first.finished() << " of " << kJobs << " jobs ended";
  first.expect_each_ended_once_with(expected);
  EXPECT_TRUE(stack.shut_down());
}

}  // namespace several_schedulers_test
}  // namespace optserve::test_support
