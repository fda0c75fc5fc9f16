#include "client/choices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace optserve::client {
namespace choices_test {

using protocol::JobResult;
using protocol::JobSpec;
using protocol::JobState;
using ::testing::HasSubstr;

JobSpec sampled() {
  JobSpec job;
  job.prompt = "once";
  job.sampling.temperature = 1;
  job.sampling.seed = 40;
  return job;
}

TEST(Choices, AreJobsOfOneGroupWithSeedsOfTheirOwn) {
  JobSpec job = sampled();
  job.key = "k";
  const auto jobs = choice_jobs(job, 2, 3);
  ASSERT_TRUE(jobs.ok()) << jobs.refusal().message;
  ASSERT_EQ(jobs.value().size(), 3u);
  EXPECT_FALSE(jobs.value()[0].group.empty());
  for (size_t i = 0; i < 3; ++i) {
    const JobSpec& choice = jobs.value()[i];
    EXPECT_EQ(choice.group, jobs.value()[0].group);
    EXPECT_EQ(choice.sampling.seed, 40 + i);
    EXPECT_EQ(choice.key, "k." + std::to_string(i + 1));
    EXPECT_EQ(choice.sampling.logprobs, 0);
    EXPECT_EQ(choice.prompt, "once");
  }
  const auto again = choice_jobs(sampled(), 3, 3);
  EXPECT_NE(again.value()[0].group, jobs.value()[0].group);
  EXPECT_EQ(again.value()[0].sampling.logprobs, -1) << "all are returned: nothing is compared";
  EXPECT_TRUE(again.value()[0].key.empty());
}

TEST(Choices, KeepWhatTheJobAsksFor) {
  JobSpec job = sampled();
  job.group = "mine";
  job.sampling.logprobs = 5;
  const auto jobs = choice_jobs(job, 1, 2);
  EXPECT_EQ(jobs.value()[1].group, "mine");
  EXPECT_EQ(jobs.value()[1].sampling.logprobs, 5);
  const auto one = choice_jobs(job, 1, 1);
  EXPECT_EQ(one.value(), std::vector<JobSpec>{job});
}

TEST(Choices, RefuseWhatGivesTheSameTextEachTime) {
  const auto refusal = [](const JobSpec& job, int n, int best_of) {
    const auto jobs = choice_jobs(job, n, best_of);
    return jobs.ok() ? "accepted" : jobs.refusal().message;
  };
  for (const auto& [n, best_of] : {std::pair{0, 1}, {2, 1}, {1, kChoicesMax + 1}, {-1, -1}}) {
    EXPECT_THAT(refusal(sampled(), n, best_of), HasSubstr("expected 1 <= n <= best_of <= 64"));
  }
  JobSpec greedy = sampled(), beams = sampled(), scored = sampled();
  greedy.sampling.temperature = 0;
  beams.sampling.beam_width = 2;
  scored.max_new_tokens = 0;
  for (const JobSpec& job : {greedy, beams, scored}) {
    EXPECT_THAT(refusal(job, 2, 2), HasSubstr("all are the same"));
    EXPECT_EQ(refusal(job, 1, 1), "accepted");
  }
  EXPECT_EQ(refusal(sampled(), kChoicesMax, kChoicesMax), "accepted");
}

JobResult result(std::vector<float> logprobs, JobState state = JobState::kSucceeded) {
  JobResult one;
  one.logprobs = std::move(logprobs);
  one.state = state;
  return one;
}

TEST(Choices, TheBestAreTheLikeliestThatSucceeded) {
  const std::vector<JobResult> all{result({-1, -2}), result({}, JobState::kFailed), result({-0.5f}), result({-3})};
  EXPECT_EQ(cumulative_logprob(all[0]), -3);
  const auto best = best_choices(all, 3);
  ASSERT_EQ(best.size(), 3u);
  EXPECT_EQ(best[0], all[2]);
  EXPECT_EQ(best[1], all[0]) << "equals keep their order";
  EXPECT_EQ(best[2], all[3]);
  EXPECT_EQ(best_choices({all[1], all[0]}, 1)[0], all[0]);
  EXPECT_EQ(best_choices(all, 4), all) << "nothing is left out: as they were asked for";
}

}  // namespace choices_test
}  // namespace optserve::client
