// An open-loop load of many times what a worker can do: jobs come at their times whatever became of the earlier ones.
// What counts is goodput: jobs that end in time.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "scheduler/leases/worker_speed.h"
#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace scheduler_overload_test {

constexpr milliseconds kStep{50};
constexpr int32_t kSlots = 16;
constexpr int32_t kNewTokens = 10;
constexpr double kCapacity = kSlots / (kNewTokens * 0.05);  // jobs a second: 32

struct Outcome {
  double goodput = 0;  // jobs a second that ended in time
  size_t open_max = 0;
  size_t open_max_warm = 0;  // once the worker's speed is measured
  size_t accepted = 0, refused = 0, expired = 0;
  int64_t retry_min = INT64_MAX, retry_max = 0;
  double p99_seconds = 0;  // of jobs that ended in time, from their submit
};

// Each running job makes one token a step.
class ModelledWorker {
 public:
  explicit ModelledWorker(World& world) : world_(world) {}
  void step() {
    for (const auto& revoke : world_.take<protocol::Revoke>(world_.worker)) {
      for (const uint64_t lease : revoke.leases) leases_.erase(lease);
    }
    for (const auto& dispatch : world_.take<protocol::Dispatch>(world_.worker)) {
      for (const auto& item : dispatch.items) leases_[item.lease] = 0;
    }
    protocol::Tokens message;
    message.term = 1;
    for (auto& [lease, position] : leases_) {
      message.leases.push_back(lease);
      message.positions.push_back(position++);
      message.tokens.push_back(kFirstByteId + 'a');
      message.finished.push_back(position == kNewTokens ? 2 : 0);
    }
    std::erase_if(leases_, [](const auto& lease) { return lease.second == kNewTokens; });
    if (!message.leases.empty()) world_.send(world_.worker, std::move(message));
  }

 private:
  World& world_;
  std::map<uint64_t, uint32_t> leases_;  // with positions
};

Outcome run(double times_capacity, SchedulerOptions options, int64_t ttl_ms, uint64_t seed) {
  // The jobs that came before the speed was known take some 20 s.
  constexpr int kWarmUp = 500, kSteps = 1'300;
  World world(options);
  world.add_services();
  world.add_worker(world.worker, 2, kSlots);
  ModelledWorker worker(world);
  std::mt19937_64 random(seed);
  std::poisson_distribution<int> arrivals(times_capacity * kCapacity * 0.05);
  Outcome outcome;
  std::map<JobId, Instant> submitted;
  std::vector<double> seconds_taken;
  size_t keys = 0, good = 0;
  for (int step = 0; step < kSteps; ++step) {
    for (int i = arrivals(random); i > 0; --i) {
      auto spec = job_spec("k" + std::to_string(++keys), "", kNewTokens);
      spec.prompt_ids = {2, 5, 6, 7, 8, 9, 10, 11};
      spec.ttl_ms = ttl_ms;
      spec.tenant = "t" + std::to_string(random() % 4);
      const auto answer = world.submit_refused(spec);
      if (answer.job) {
        ++outcome.accepted;
        submitted[*answer.job] = world.clock.now();
        continue;
      }
      ++outcome.refused;
      if (answer.error != ErrorCode::kBusy) continue;
      outcome.retry_min = std::min(outcome.retry_min, answer.retry_after_ms);
      outcome.retry_max = std::max(outcome.retry_max, answer.retry_after_ms);
    }
    worker.step();
    world.tokenize();
    world.heartbeat(world.tokenizer, 1);
    world.heartbeat(world.worker, 2, static_cast<uint64_t>(step));
    world.advance(kStep);
    for (const auto& finished : world.take<protocol::JobFinished>(world.client)) {
      if (finished.result.state == protocol::JobState::kExpired) ++outcome.expired;
      if (finished.result.state != protocol::JobState::kSucceeded || step < kWarmUp) continue;
      ++good;
      seconds_taken.push_back(
          std::chrono::duration<double>(world.clock.now() - submitted[finished.result.job]).count());
    }
    const size_t open = world.service->jobs().size();
    outcome.open_max = std::max(outcome.open_max, open);
    if (step >= kWarmUp) outcome.open_max_warm = std::max(outcome.open_max_warm, open);
    std::erase_if(world.sent, [&](const auto& item) { return item.to != world.worker && item.to != world.tokenizer; });
  }
  outcome.goodput = static_cast<double>(good) / ((kSteps - kWarmUp) * 0.05);
  std::sort(seconds_taken.begin(), seconds_taken.end());
  if (!seconds_taken.empty()) outcome.p99_seconds = seconds_taken[seconds_taken.size() * 99 / 100];
  return outcome;
}

std::map<double, Outcome> run_all(const char* name, const SchedulerOptions& options, int64_t ttl_ms) {
  const uint64_t seed = std::random_device()();
  ::testing::Test::RecordProperty("seed", std::to_string(seed));
  std::printf("%s, seed %llu, capacity %.0f jobs/s\n", name, static_cast<unsigned long long>(seed), kCapacity);
  std::map<double, Outcome> outcomes;
  for (const double load : {0.5, 1.0, 2.0, 5.0, 10.0}) {
    const Outcome& o = outcomes[load] = run(load, options, ttl_ms, seed);
    std::printf("  %4.1fx: %5.1f in time/s, p99 %.2f s, accepted %zu, refused %zu, expired %zu, open <= %zu (%zu)\n",
                load, o.goodput, o.p99_seconds, o.accepted, o.refused, o.expired, o.open_max, o.open_max_warm);
  }
  return outcomes;
}

double peak(const std::map<double, Outcome>& outcomes) {
  double best = 0;
  for (const auto& [load, outcome] : outcomes) best = std::max(best, outcome.goodput);
  return best;
}

TEST(SchedulerOverload, GoodputHoldsWhenJobsHaveShortDeadlines) {
  const auto outcomes = run_all("deadline 4 s", {}, 4'000);
  EXPECT_GE(peak(outcomes), 0.9 * kCapacity);
  for (const auto& [load, outcome] : outcomes) {
    SCOPED_TRACE(load);
    EXPECT_GE(outcome.goodput, 0.9 * std::min(1.0, load) * peak(outcomes));
    EXPECT_LE(static_cast<double>(outcome.expired), 0.05 * static_cast<double>(outcome.accepted));
  }
  // Those are the jobs that came before the speed was known, and then no more than can start in time with a clear
  // margin.
  const double unmeasured = 10 * kCapacity * SpeedMeter::kRecordsMin * 0.05;
  EXPECT_LE(static_cast<double>(outcomes.at(10.0).open_max), unmeasured + 2 * 4 * kCapacity);
  EXPECT_LE(static_cast<double>(outcomes.at(10.0).open_max_warm), 2 * 4 * kCapacity);
  EXPECT_EQ(outcomes.at(0.5).refused, 0u);
  EXPECT_EQ(outcomes.at(0.5).expired, 0u);
}

TEST(SchedulerOverload, GoodputHoldsWhenTheQueueIsBoundedInTime) {
  SchedulerOptions options;
  options.queue_seconds_max = 5;
  const auto outcomes = run_all("queue of 5 s", options, 60'000);
  EXPECT_GE(peak(outcomes), 0.9 * kCapacity);
  const Outcome& worst = outcomes.at(10.0);
  EXPECT_GE(worst.goodput, 0.9 * peak(outcomes));
  EXPECT_EQ(worst.expired, 0u);
  EXPECT_LE(static_cast<double>(worst.open_max), 2 * 5 * kCapacity + 10 * kCapacity);  // some before it is measured
  EXPECT_LE(worst.p99_seconds, 15);
  EXPECT_GE(worst.retry_min, 50);
  EXPECT_LE(worst.retry_max, 30'000);
}

}  // namespace scheduler_overload_test
}  // namespace optserve::scheduler::testing
