// What is remembered of a job for those who ask about it: its attempts, its trace, its prompt and its kind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/log.h"
#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace job_record_test {

using protocol::JobState;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

protocol::JobResult asked(World& world, const JobId& job) {
  world.send(world.client, protocol::GetJob{3, job});
  world.advance(milliseconds(100));
  return world.only<protocol::JobStatus>(world.client).result;
}

TEST(JobRecord, EveryAttemptHasItsTimesItsServiceAndWhyItWasLost) {
  World world;
  world.add_services();
  world.advance(seconds(1));
  const auto first = world.submit_and_dispatch(job_spec("a", "once", 1));
  world.advance(seconds(2));
  world.send(world.worker, protocol::LeaseFailed{1, first.lease, ErrorCode::kInternal, "rank died", true});
  const auto second = world.dispatched(world.worker);
  world.advance(seconds(1));
  auto tries = asked(world, first.job).tries;
  ASSERT_EQ(tries.size(), 2u);
  EXPECT_EQ(tries[0], (protocol::JobAttempt{1, 0, 2'000, "worker", "rank died"}));
  EXPECT_EQ(tries[1], (protocol::JobAttempt{2, 2'000, -1, "worker", ""}));
  world.generate(world.worker, second, 0, 1);
  world.tokenize();
  tries = world.only<protocol::JobFinished>(world.client).result.tries;
  ASSERT_EQ(tries.size(), 2u);
  EXPECT_EQ(tries[1], (protocol::JobAttempt{2, 2'000, 3'100, "worker", ""}));
  EXPECT_EQ(asked(world, first.job).tries, tries);
}

TEST(JobRecord, AttemptsThatDoNotCountAreBounded) {
  JobAttempts attempts;
  attempts.count = 1;
  constexpr auto kMany = static_cast<int64_t>(3 * JobAttempts::kTriesMax);
  for (int64_t i = 0; i < kMany; ++i) {
    attempts.begin_try("worker", i);
    attempts.end_try(i + 1, "it could not be delivered");
    attempts.end_try(i + 9, "not its end");
  }
  ASSERT_EQ(attempts.tries.size(), JobAttempts::kTriesMax);
  EXPECT_EQ(attempts.tries.back(), (protocol::JobAttempt{1, kMany - 1, kMany, "worker", "it could not be delivered"}));
}

TEST(JobRecord, TheTraceGoesWithTheJobToEveryServiceAndIntoItsResult) {
  World world;
  world.add_services();
  auto spec = job_spec("a", "once", 1);
  spec.traceparent = kTrace;
  ::testing::internal::CaptureStderr();
  init_logging("test", "info", LogFormat::kText);
  const JobId job = world.submit(spec);
  const auto encode = world.only<protocol::Encode>(world.tokenizer);
  EXPECT_EQ(encode.items.at(0).traceparent, kTrace);
  world.send(world.tokenizer, encode_bytes(encode));
  const auto item = world.dispatched(world.worker);
  EXPECT_EQ(item.traceparent, kTrace);
  world.generate(world.worker, item, 0, 1);
  world.tokenize();
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.traceparent, kTrace);
  EXPECT_EQ(asked(world, job).traceparent, kTrace);
  const std::string log = ::testing::internal::GetCapturedStderr();
  for (const char* event : {"job_accepted", "job_leased", "job_ended"}) EXPECT_THAT(log, HasSubstr(event));
  EXPECT_THAT(log, HasSubstr("trace_id=0af7651916cd43dd8448eb211c80319c"));
  // The same job under the trace of a repeated request.
  spec.traceparent[5] = 'b';
  world.send(world.client, protocol::Submit{7, false, {spec}});
  const auto again = world.only<protocol::SubmitReply>(world.client).outcomes.at(0);
  EXPECT_TRUE(again.duplicate);
  EXPECT_EQ(again.job, job);
}

TEST(JobRecord, AJobWithoutATraceOrWithOneThatNobodyWantsToSeeIsNotLogged) {
  World world;
  world.add_services();
  for (const std::string& trace : {std::string(), kTrace.substr(0, 53) + "00"}) {
    auto spec = job_spec("a" + std::to_string(trace.size()), "once", 1);
    spec.traceparent = trace;
    ::testing::internal::CaptureStderr();
    init_logging("test", "info", LogFormat::kText);
    const auto item = world.submit_and_dispatch(spec);
    world.generate(world.worker, item, 0, 1);
    world.tokenize();
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), Not(HasSubstr("job_")));
  }
}

TEST(JobRecord, TheBeginningOfThePromptIsForThoseWhoAskAndNotForFollowers) {
  for (const size_t kept : {size_t{0}, size_t{6}, size_t{100}}) {
    SchedulerOptions options;
    options.prompt_bytes_kept = kept;
    World world(options);
    world.add_services();
    const auto item = world.submit_and_dispatch(job_spec("a", "once\u20ac more", 1));
    const std::string shown = kept == 0 ? "" : kept == 6 ? "once" : "once\u20ac more";
    EXPECT_EQ(asked(world, item.job).prompt, shown);
    world.generate(world.worker, item, 0, 1);
    world.tokenize();
    EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.prompt, "");
    EXPECT_EQ(asked(world, item.job).prompt, shown);
    world.send(world.client, protocol::Attach{8, item.job, 0, 0});
    world.advance(milliseconds(100));
    EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.prompt, "");
  }
}

TEST(JobRecord, ListsSayTheKindAndGoNewestFirstPageByPage) {
  World world;
  world.add_services();
  for (int i = 0; i < 6; ++i) {
    if (i == 3) {
      auto conversion = job_spec("job-3");
      conversion.kind = protocol::JobKind::kConvert;
      conversion.convert = protocol::ConvertSpec{"/a", "/b", "keep", 1};
      conversion.model.clear(), conversion.prompt.clear();
      world.submit(conversion);
      continue;
    }
    const auto item = world.submit_and_dispatch(job_spec("job-" + std::to_string(i), "once", 1));
    if (i % 2 == 0) world.generate(world.worker, item, 0, 1);
    world.tokenize();
  }
  std::vector<std::string> keys;
  protocol::ListJobs question;
  question.request = 9, question.limit = 2, question.newest_first = true;
  for (bool more = true; more;) {
    world.send(world.client, question);
    world.advance(milliseconds(100));
    const auto page = world.only<protocol::JobList>(world.client);
    ASSERT_FALSE(page.jobs.empty());
    for (const auto& job : page.jobs) {
      keys.push_back(job.key);
      EXPECT_EQ(job.kind == protocol::JobKind::kConvert, job.key == "job-3");
    }
    question.after = page.jobs.back().order;
    more = page.more;
  }
  EXPECT_EQ(keys, (std::vector<std::string>{"job-5", "job-4", "job-3", "job-2", "job-1", "job-0"}));
}

}  // namespace job_record_test
}  // namespace optserve::scheduler::testing
