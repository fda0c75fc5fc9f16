// Schedulers of one queue in a real PostgreSQL: whatever dies, is paused or is cut off, every job ends once with the
// text that it has without the fault. By hand, for a night: --gtest_repeat=500 --gtest_filter='*Random*'.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <random>

#include "demo_stack.h"
#include "job_watch.h"
#include "journal/postgres/postgres_test_server.h"
#include "support/demo_model.h"

namespace optserve::test_support {
namespace standby_schedulers_test {

using journal::testing::TestServer;
using SteadyClock = std::chrono::steady_clock;

constexpr size_t kJobs = kSanitized ? 4 : 8;
constexpr int kTokens = kSanitized ? 60 : 250;

protocol::JobSpec long_job(size_t index, const std::string& run) {
  protocol::JobSpec job = test_support::long_job(index, 2000 + index, kTokens);
  job.key = run + "-" + std::to_string(index);
  job.max_attempts = 10;
  return job;
}

class StandbySchedulers : public ::testing::Test {
 protected:
  StandbySchedulers() { journal::init_queue(server.url(), "optserve", {}); }

  void start() {
    stack = std::make_unique<DemoStack>(StackOptions{.schedulers = 2, .postgres = server.url()});
    stack->wait_ready();
  }
  // Submits the jobs of a run; the watch outlives its client.
  struct Run {
    JobWatch watch{kJobs};
    std::unique_ptr<Client> client;
  };
  std::unique_ptr<Run> submit(const std::string& name) {
    auto run = std::make_unique<Run>();
    run->client = stack->client();
    for (size_t i = 0; i < kJobs; ++i) {
      const auto outcome = run->client->submit({long_job(i, name)}, run->watch.stream(i));
      EXPECT_TRUE(outcome.ok() && outcome.value()[0].job) << name << " " << i;
    }
    return run;
  }
  // The time until tokens arrive again.
  double seconds_without_tokens(const Run& run) {
    const auto begin = SteadyClock::now();
    const size_t pieces = run.watch.pieces();
    EXPECT_TRUE(wait_for([&] { return run.watch.pieces() > pieces || run.watch.finished() == kJobs; }, seconds(60)));
    return std::chrono::duration<double>(SteadyClock::now() - begin).count();
  }
  bool is_done(const Run& run) {
    return wait_for([&] { return run.watch.finished() == kJobs; }, seconds(180));
  }

  TestServer server;
  std::unique_ptr<DemoStack> stack;  // goes before its database
};

TEST_F(StandbySchedulers, TakeOverFromALeaderThatIsKilledPausedOrAsked) {
  start();
  auto undisturbed = submit("undisturbed");
  ASSERT_TRUE(is_done(*undisturbed));
  const std::vector<std::string> expected = undisturbed->watch.texts();

  auto killed = submit("killed");
  ASSERT_TRUE(wait_for([&] { return killed->watch.pieces() > kJobs; }, seconds(60)));
  int leader = stack->leader();
  ASSERT_GE(leader, 0);
  stack->kill_scheduler(leader);
  const double after_kill = seconds_without_tokens(*killed);
  stack->start_scheduler(leader);
  ASSERT_TRUE(is_done(*killed));
  killed->watch.expect_each_succeeded_once_with(expected);

  auto paused = submit("paused");
  ASSERT_TRUE(wait_for([&] { return paused->watch.pieces() > kJobs; }, seconds(60)));
  leader = stack->leader();
  stack->signal_scheduler(leader, SIGSTOP);
  const auto paused_at = SteadyClock::now();
  // Tokens alone do not tell: some may still be in flight, and a leader that wakes too early keeps the lead.
  ASSERT_TRUE(wait_for([&] { return stack->leader() == 1 - leader; }, seconds(30)));
  seconds_without_tokens(*paused);
  const double after_pause = std::chrono::duration<double>(SteadyClock::now() - paused_at).count();
  stack->signal_scheduler(leader, SIGCONT);
  EXPECT_NE(stack->wait_scheduler(leader), 0);  // it ends: another leads
  stack->start_scheduler(leader);
  ASSERT_TRUE(is_done(*paused));
  paused->watch.expect_each_succeeded_once_with(expected);

  auto asked = submit("asked");
  ASSERT_TRUE(wait_for([&] { return asked->watch.pieces() > kJobs; }, seconds(60)));
  leader = stack->leader();
  const auto begin = SteadyClock::now();
  ASSERT_TRUE(journal::hand_over_queue(server.url(), "optserve", seconds(10)));
  const double hand_over = std::chrono::duration<double>(SteadyClock::now() - begin).count();
  const double after_hand_over = seconds_without_tokens(*asked);
  EXPECT_LT(hand_over, 2.0);
  ASSERT_TRUE(is_done(*asked));
  asked->watch.expect_each_succeeded_once_with(expected);
  EXPECT_NE(stack->leader(), leader);
  std::printf("without tokens: killed %.2f s, paused %.2f s, handed over %.2f s (the hand-over itself %.2f s)\n",
              after_kill, after_pause, after_hand_over, hand_over);
  EXPECT_LT(after_kill, 15.0);
  EXPECT_LT(after_pause, 15.0);
  EXPECT_TRUE(stack->shut_down());
}

TEST_F(StandbySchedulers, SurviveRandomDeathsOfLeadersAndOfTheServer) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  start();
  auto undisturbed = submit("undisturbed");
  ASSERT_TRUE(is_done(*undisturbed));
  auto run = submit("disturbed");
  // A third sudden end of a leader with a running job would make the job a dead letter, since the job may be the cause.
  for (int death = 0; death < 2 && run->watch.finished() < kJobs; ++death) {
    std::this_thread::sleep_for(milliseconds(random() % 1'500));
    const int leader = stack->leader();
    const auto kind = random() % 3;
    if (kind == 0 || leader < 0) {
      server.stop(random() % 2 == 0 ? SIGKILL : SIGQUIT);
      std::this_thread::sleep_for(milliseconds(random() % 1'000));
      server.start();
    } else {
      stack->signal_scheduler(leader, kind == 1 ? SIGKILL : SIGSTOP);
      ASSERT_TRUE(wait_for([&] { return stack->leader() == 1 - leader; }, seconds(30)));
      if (kind == 2) stack->signal_scheduler(leader, SIGCONT);
      stack->wait_scheduler(leader);
      stack->start_scheduler(leader);
    }
    ASSERT_TRUE(wait_for([&] { return stack->leader() >= 0; }, seconds(30)));
  }
  ASSERT_TRUE(is_done(*run));
  run->watch.expect_each_succeeded_once_with(undisturbed->watch.texts());
}

}  // namespace standby_schedulers_test
}  // namespace optserve::test_support
