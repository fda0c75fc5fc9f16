// The whole system against the golden values: text in, text out, through real processes.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "demo_stack.h"
#include "support/demo_model.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {
namespace pipeline_test {

using protocol::JobState;

class Pipeline : public ::testing::TestWithParam<int> {};  // tensor-parallel size

TEST_P(Pipeline, EveryGoldenCaseAloneAndWithItsLogprobs) {
  DemoStack stack({.world = GetParam()});
  stack.wait_ready();
  const auto client = stack.client();
  for (const DemoCase& golden : demo_goldens().cases) {
    SCOPED_TRACE(golden.prompt);
    protocol::JobSpec job = greedy_job(golden);
    job.prompt_logprobs = true;
    job.prompt_best = 2;
    std::string streamed;
    const auto result = client->generate(job, [&](std::string_view piece) { streamed += piece; });
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_EQ(result.value().state, JobState::kSucceeded) << result.value().message;
    EXPECT_EQ(result.value().ids, golden.greedy_ids);
    EXPECT_EQ(result.value().text, golden.greedy_text);
    EXPECT_EQ(streamed, golden.greedy_text);
    EXPECT_EQ(result.value().prompt_tokens, static_cast<int32_t>(golden.prompt_ids.size()));
    ASSERT_EQ(result.value().prompt_logprobs.size(), golden.prompt_logprobs.size());
    for (size_t i = 0; i < golden.prompt_logprobs.size(); ++i) {
      EXPECT_NEAR(result.value().prompt_logprobs[i], golden.prompt_logprobs[i], 1e-3) << "prompt token " << i + 1;
    }
    ASSERT_EQ(result.value().prompt_best.size(), golden.prompt_logprobs.size());
    for (const auto& best : result.value().prompt_best) {
      ASSERT_EQ(best.size(), 2u);
      EXPECT_GE(best[0].logprob, best[1].logprob);
    }
  }
  EXPECT_TRUE(stack.shut_down());
}

// All cases several times at once; the group's KV cache is so small that sequences are preempted, and its steps so
// short that prompts are cut.
TEST_P(Pipeline, SameTextAmongSixtyFourOthersChunkedAndPreempted) {
  DemoStack stack(
      {.world = GetParam(), .worker_arguments = {"--max-sequences=16", "--max-step-tokens=19", "--kv-tokens=640"}});
  stack.wait_ready();
  const auto client = stack.client();
  std::vector<protocol::JobSpec> jobs;
  for (size_t i = 0; i < 64; ++i) jobs.push_back(greedy_job(demo_goldens().cases[i % demo_goldens().cases.size()]));
  const auto outcomes = client->submit(jobs);
  ASSERT_TRUE(outcomes.ok()) << outcomes.refusal().message;
  for (size_t i = 0; i < jobs.size(); ++i) {
    ASSERT_TRUE(outcomes.value()[i].job) << outcomes.value()[i].message;
    const auto result = client->wait(*outcomes.value()[i].job, std::chrono::seconds(240));
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    const DemoCase& golden = demo_goldens().cases[i % demo_goldens().cases.size()];
    EXPECT_EQ(result.value().state, JobState::kSucceeded) << result.value().message;
    EXPECT_EQ(result.value().ids, golden.greedy_ids) << golden.prompt;
    EXPECT_EQ(result.value().text, golden.greedy_text);
  }
  EXPECT_TRUE(stack.shut_down());
}

INSTANTIATE_TEST_SUITE_P(World, Pipeline, ::testing::ValuesIn(kSanitized ? std::vector{2} : std::vector{1, 2, 4}));

TEST(PipelineDraftModel, AGroupWithOneGivesTheGoldens) {
  const TemporaryFolder folder;
  convert_demo_model(folder / "small", 1, "int4");
  DemoStack stack({.world = 2, .worker_arguments = {"--draft-model=" + (folder / "small"), "--draft-tokens=0"}});
  stack.wait_ready();
  const auto client = stack.client();
  for (size_t i = 0; i < 3; ++i) {
    const DemoCase& golden = demo_goldens().cases[i];
    const auto result = client->generate(greedy_job(golden));
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_EQ(result.value().ids, golden.greedy_ids) << golden.prompt;
  }
  EXPECT_TRUE(stack.shut_down());
}

TEST(PipelineStop, StopStringsEndTheTextBeforeThemAndFreeTheSlot) {
  DemoStack stack({});
  stack.wait_ready();
  const auto client = stack.client();
  const DemoCase& golden = demo_goldens().cases.front();
  protocol::JobSpec job = greedy_job(golden);
  const std::string stop = golden.greedy_text.substr(25, 9);
  job.stop = {"never to be seen", stop};
  std::string streamed;
  const auto result = client->generate(job, [&](std::string_view piece) { streamed += piece; });
  ASSERT_TRUE(result.ok()) << result.refusal().message;
  EXPECT_EQ(result.value().finish_reason, sampling::FinishReason::kStop);
  EXPECT_EQ(result.value().text, golden.greedy_text.substr(0, golden.greedy_text.find(stop)));
  EXPECT_EQ(streamed, result.value().text);
}

TEST(PipelineSampling, TheSameSeedGivesTheSameTextAndAnotherSeedAnother) {
  DemoStack stack({.world = 2});
  stack.wait_ready();
  const auto client = stack.client();
  protocol::JobSpec job = greedy_job(demo_goldens().cases.front());
  job.sampling.temperature = 0.9f;
  job.sampling.top_p = 0.95f;
  job.sampling.seed = 7;
  const auto first = client->generate(job);
  const auto again = client->generate(job);
  job.sampling.seed = 8;
  const auto other = client->generate(job);
  ASSERT_TRUE(first.ok() && again.ok() && other.ok());
  EXPECT_EQ(first.value().ids, again.value().ids);
  EXPECT_NE(first.value().ids, other.value().ids);
}

TEST(PipelineQueue, CancelEndsARunningJobAndAKeyNamesOneJob) {
  DemoStack stack({});
  stack.wait_ready();
  const auto client = stack.client();
  protocol::JobSpec job = greedy_job(demo_goldens().cases.front());
  job.max_new_tokens = 900;
  job.sampling.ignore_eos = true;
  job.key = "one-key";
  const auto submitted = client->submit({job});
  ASSERT_TRUE(submitted.ok() && submitted.value()[0].job);
  const auto repeated = client->submit({job});
  ASSERT_TRUE(repeated.ok());
  EXPECT_TRUE(repeated.value()[0].duplicate);
  EXPECT_EQ(repeated.value()[0].job, submitted.value()[0].job);
  job.max_new_tokens = 5;
  const auto conflicting = client->submit({job});
  ASSERT_TRUE(conflicting.ok());
  EXPECT_EQ(conflicting.value()[0].error, ErrorCode::kIdempotencyConflict);
  const auto cancelled = client->cancel(*submitted.value()[0].job);
  ASSERT_TRUE(cancelled.ok()) << cancelled.refusal().message;
  EXPECT_EQ(cancelled.value().state, JobState::kCancelled);
  const auto next = client->generate(greedy_job(demo_goldens().cases[1]));
  ASSERT_TRUE(next.ok());
  EXPECT_EQ(next.value().text, demo_goldens().cases[1].greedy_text);
}

}  // namespace pipeline_test
}  // namespace optserve::test_support
