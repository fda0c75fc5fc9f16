// Speeds, waits, bounds, times and affinities: the numbers behind admission and routing.
#include "scheduler/queue/queue_bounds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>

#include "scheduler/jobs/job_times.h"

namespace optserve::scheduler {
namespace queue_bounds_test {

using ::testing::HasSubstr;

TEST(SpeedMeterTest, MeasuresOnlyWhileTheWorkerHasAllItCanTake) {
  SpeedMeter meter;
  Instant now{seconds(100)};
  meter.record(0, now, false);
  for (int i = 0; i < 100; ++i) meter.record(1, now += milliseconds(100), false);
  EXPECT_EQ(meter.tokens_per_second(), 0);
  meter.record(5, now += milliseconds(100), true);
  EXPECT_EQ(meter.tokens_per_second(), 0);
  for (int i = 0; i < 100; ++i) meter.record(40, now += milliseconds(100), true);
  EXPECT_NEAR(meter.tokens_per_second(), 400, 1);
  meter.pause();
  now += seconds(3'600);
  meter.record(1, now, true);
  for (int i = 0; i < 10; ++i) meter.record(40, now += milliseconds(100), true);
  EXPECT_NEAR(meter.tokens_per_second(), 400, 1);
  for (int i = 0; i < 600; ++i) meter.record(10, now += milliseconds(100), true);
  EXPECT_NEAR(meter.tokens_per_second(), 100, 3);
}

// A scheduler that was stopped reads one late record, and then everything that the worker did meanwhile.
TEST(SpeedMeterTest, DoesNotBelieveAPauseAlone) {
  SpeedMeter meter;
  Instant now{seconds(100)};
  meter.record(1, now, true);
  meter.record(1, now += milliseconds(2'300), true);
  EXPECT_EQ(meter.tokens_per_second(), 0);
  for (int i = 0; i < 100; ++i) meter.record(20, now += milliseconds(1), true);
  EXPECT_GT(meter.tokens_per_second(), 400);
}

TEST(StepPaceTest, TheLimitFollowsTheSlowestRecentStep) {
  const StepPace::Bounds bounds;
  StepPace pace;
  Instant now{seconds(1'000)};
  EXPECT_EQ(pace.limit(bounds), seconds(120));
  pace.step(milliseconds(50), now);
  EXPECT_EQ(pace.limit(bounds), seconds(10));
  pace.step(seconds(3), now);
  EXPECT_EQ(pace.limit(bounds), seconds(30));
  pace.step(seconds(20), now);
  EXPECT_EQ(pace.limit(bounds), seconds(60));
  for (int i = 0; i < 700; ++i) pace.step(seconds(1), now += seconds(1));
  EXPECT_EQ(pace.limit(bounds), seconds(10));
}

TEST(LoadEstimateTest, LearnsBytesPerTokenAndTheShareThatIsUsed) {
  LoadEstimate load;
  EXPECT_EQ(load.prompt_tokens(400), 101);
  EXPECT_EQ(load.prompt_tokens(1 << 16), 2'048);
  for (int i = 0; i < 10'000; ++i) load.learn_prompt(200, 100);
  EXPECT_NEAR(static_cast<double>(load.prompt_tokens(400)), 201, 8);
  EXPECT_EQ(load.drain_ms(1'000), -1);
  load.add_worker(100);
  EXPECT_EQ(load.drain_ms(1'000), 10'000);
  for (int i = 0; i < 1'000; ++i) load.learn_job(50, 100);
  EXPECT_NEAR(static_cast<double>(load.drain_ms(1'000)), 5'000, 50);
}

TEST(LoadEstimateTest, UnmeasuredWorkersCountAsTheMeanAndTheLastSpeedStays) {
  LoadEstimate load;
  load.add_worker(0);
  load.add_worker(100);
  load.add_worker(300);
  EXPECT_EQ(load.tokens_per_second(), 600);
  load.remove_worker(300);
  EXPECT_EQ(load.tokens_per_second(), 200);
  load.remove_worker(100);
  load.remove_worker(0);
  EXPECT_EQ(load.tokens_per_second(), 600);  // what it was when a speed was last measured
}

TEST(PrefixAffinityTest, RemembersTheLastGroupOfAPrefixAndIsBounded) {
  PrefixAffinity affinity;
  std::vector<TokenId> prompt(PrefixAffinity::kPrefixTokens, 7);
  const uint64_t prefix = PrefixAffinity::hash(prompt);
  prompt.push_back(9);
  EXPECT_EQ(PrefixAffinity::hash(prompt), prefix);
  prompt[0] = 8;
  EXPECT_NE(PrefixAffinity::hash(prompt), prefix);
  prompt.resize(10);
  EXPECT_EQ(PrefixAffinity::hash(prompt), 0u);
  affinity.note(prefix, 1);
  affinity.note(prefix, 2);
  EXPECT_EQ(affinity.worker_of(prefix), 2u);
  for (uint64_t other = 1; other <= PrefixAffinity::kPrefixesPerWorker; ++other) affinity.note(other, 2);
  EXPECT_EQ(affinity.worker_of(prefix), 0u);
  EXPECT_EQ(affinity.size(), PrefixAffinity::kPrefixesPerWorker);
  affinity.forget(2);
  EXPECT_EQ(affinity.size(), 0u);
}

TEST(JobTimesTest, LimitsCountFromTheEndOfTheDelayAndAClockThatMovedIsClamped) {
  const Instant now{seconds(1'000)};
  Job job;
  job.spec().delay_ms = 5'000;
  job.spec().ttl_ms = 60'000;
  job.spec().queue_ms = 10'000;
  job.spec().run_ms = 20'000;
  set_times(job, now, 0);
  EXPECT_EQ(job.times.begins_at, now + seconds(5));
  EXPECT_EQ(job.times.expires_at, now + seconds(65));
  EXPECT_EQ(next_limit(job).at, now + seconds(15));
  EXPECT_EQ(half_of_time_to_start(job), now + seconds(10));
  job.attempts().started = true;
  EXPECT_EQ(next_limit(job).at, now + seconds(65));
  job.lease().number = 1;
  job.lease().began_at = now + seconds(8);
  EXPECT_EQ(next_limit(job).at, now + seconds(28));
  EXPECT_EQ(next_limit(job).kind, TimeLimit::Kind::kRun);
  EXPECT_EQ(remaining_ms(job, now + seconds(18)), 10'000);
  EXPECT_EQ(remaining_ms(job, now + seconds(100)), 1);
  set_times(job, now, -1'000'000'000);  // the wall clock went back: the whole time again, no more
  EXPECT_EQ(job.times.expires_at, now + seconds(65));
  set_times(job, now, 1'000'000'000'000);  // and far ahead: over
  EXPECT_EQ(job.times.expires_at, now);
}

class QueueBoundsTest : public ::testing::Test {
 protected:
  Job& add(const std::string& tenant, int64_t cost = 100) {
    auto job = std::make_unique<Job>();
    job->order = jobs.size() + 1;
    job->spec().tenant = tenant;
    job->spec().prompt = "once";
    job->slot.cost = cost;
    bounds.add(*job);
    queue.jobs.push(*job);
    jobs.push_back(std::move(job));
    return *jobs.back();
  }
  std::optional<QueueBounds::Full> check(const std::string& tenant, int64_t cost = 100, size_t bytes = 1'000) {
    protocol::JobSpec spec;
    spec.tenant = tenant;
    return bounds.check(spec, cost, bytes, queue);
  }
  SchedulerOptions options;
  QueueBounds bounds{options};
  ModelQueue queue{"opt", options.tenant_weights};
  std::deque<std::unique_ptr<Job>> jobs;
};

TEST_F(QueueBoundsTest, CountsJobsAndGivesThemBack) {
  options.open_jobs_max = 3;
  options.tenant_share = 1;
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(check("a"));
    add("a");
  }
  const auto full = check("b");
  ASSERT_TRUE(full);
  EXPECT_EQ(full->bound, QueueBounds::Bound::kJobs);
  EXPECT_EQ(full->retry_after_ms, 1'000);  // no speed is known
  bounds.remove(*jobs.front());
  EXPECT_FALSE(check("b"));
}

TEST_F(QueueBoundsTest, TheQueueIsBoundedInTimeOnceTheSpeedIsKnown) {
  options.tenant_share = 1;
  options.queue_seconds_max = 10;
  for (int i = 0; i < 100; ++i) add("a");
  EXPECT_FALSE(check("a"));
  queue.load.add_worker(2'000);  // 10,000 tokens wait: 5 s
  EXPECT_FALSE(check("a"));
  queue.load.remove_worker(2'000);
  queue.load.add_worker(400);
  const auto full = check("a");
  ASSERT_TRUE(full);
  EXPECT_EQ(full->bound, QueueBounds::Bound::kTokens);
  EXPECT_THAT(full->message, HasSubstr("model opt"));
  EXPECT_GE(full->retry_after_ms, 1'000);  // until a tenth of the bound is free
  EXPECT_LE(full->retry_after_ms, 30'000);
}

TEST_F(QueueBoundsTest, MemoryIsBoundedAndFollowsWhatAJobHolds) {
  options.queue_bytes_max = 100'000;
  EXPECT_EQ(check("a", 100, 100'001)->bound, QueueBounds::Bound::kBytes);
  Job& job = add("a");
  const size_t before = bounds.bytes();
  job.output().text.assign(50'000, 'x');  // more than its tokens stood for
  bounds.update(job);
  EXPECT_GT(bounds.bytes(), before + 45'000);
  EXPECT_EQ(check("b", 100, 60'000)->bound, QueueBounds::Bound::kBytes);
  bounds.remove(job);
  EXPECT_EQ(bounds.bytes(), 0u);
  EXPECT_EQ(bounds.tenants(), 0u);
}

TEST_F(QueueBoundsTest, TenantsLeaveRoomForOthersHoweverManyAreGreedy) {
  options.open_jobs_max = 1'000;
  while (!check("a")) add("a");
  EXPECT_NEAR(static_cast<double>(bounds.jobs()), 900, 1);
  EXPECT_EQ(check("a")->bound, QueueBounds::Bound::kTenant);
  EXPECT_FALSE(check("b"));
  while (!check("b")) add("b");
  EXPECT_LT(bounds.jobs(), 1'000u);
  EXPECT_FALSE(check("c"));
  options.tenant_jobs_max = 1;
  EXPECT_THAT(check("b")->message, HasSubstr("maximum of 1 open jobs"));
}

}  // namespace queue_bounds_test
}  // namespace optserve::scheduler
