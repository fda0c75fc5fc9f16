// What becomes of a job whose key the other queue knows, for each pair of states.
#include "journal/merge/merge_plan.h"

#include <gtest/gtest.h>

#include "journal/journal_test_support.h"

namespace optserve::journal {
namespace merge_plan_test {

using protocol::JobState;
using testing::accepted;
using testing::id_of;

// The remaining queue has job 1 under "key-1".
MergePlan plan_with(JobState state) {
  Recovery into;
  const Accepted job = accepted(1);
  if (protocol::is_terminal(state)) {
    into.keys.push_back({job.spec.tenant, job.spec.key, job.payload_sha256, job.job, 60'000, "", state});
  } else {
    into.open.emplace_back().accepted = job;
  }
  return MergePlan(into);
}

Decision decide(MergePlan& plan, uint64_t id, JobState state, const std::string& key = "key-1", char payload = 1) {
  return plan.decide("tenant", key, {id_of(id), 0, std::string(32, payload), state});
}
Fate fate(MergePlan& plan, uint64_t id, JobState state, const std::string& key = "key-1", char payload = 1) {
  return decide(plan, id, state, key, payload).fate;
}

TEST(MergePlan, AnUnknownKeyMovesAndIsKnownFromThenOn) {
  MergePlan plan = plan_with(JobState::kQueued);
  EXPECT_EQ(fate(plan, 2, JobState::kQueued, "key-2"), Fate::kMoves);
  EXPECT_EQ(fate(plan, 3, JobState::kQueued, "key-2"), Fate::kGivesWay);
  EXPECT_EQ(plan.decide("another", "key-1", {id_of(4), 0, "", JobState::kQueued}).fate, Fate::kMoves);
}

TEST(MergePlan, AJobThatCameBeforeIsThereWhateverItsKeyStandsFor) {
  MergePlan plan = plan_with(JobState::kSucceeded);
  EXPECT_EQ(fate(plan, 1, JobState::kQueued, "another", 9), Fate::kIsThere);
  EXPECT_EQ(fate(plan, 2, JobState::kFailed), Fate::kKeepsOwnEnd);
  EXPECT_EQ(fate(plan, 2, JobState::kFailed), Fate::kIsThere);
}

TEST(MergePlan, AnotherPayloadIsAConflictUnlessOneOfThemIsNotKnown) {
  MergePlan plan = plan_with(JobState::kQueued);
  const Decision decision = decide(plan, 2, JobState::kSucceeded, "key-1", 2);
  EXPECT_EQ(decision.fate, Fate::kConflicts);
  EXPECT_EQ(decision.other.job, id_of(1));
  EXPECT_EQ(fate(plan, 2, JobState::kSucceeded, "key-1", 2), Fate::kConflicts) << "it did not come";
  EXPECT_EQ(plan.decide("tenant", "key-1", {id_of(3), 0, "", JobState::kQueued}).fate, Fate::kGivesWay);
}

TEST(MergePlan, TheSamePayloadCountsOnceAndASuccessIsPreferred) {
  const struct {
    JobState here, comes;
    Fate fate;
  } cases[] = {{JobState::kQueued, JobState::kQueued, Fate::kGivesWay},
               {JobState::kQueued, JobState::kSucceeded, Fate::kEndsOther},
               {JobState::kQueued, JobState::kDead, Fate::kKeepsOwnEnd},
               {JobState::kSucceeded, JobState::kQueued, Fate::kTakesResult},
               {JobState::kSucceeded, JobState::kSucceeded, Fate::kKeepsOwnEnd},
               {JobState::kSucceeded, JobState::kFailed, Fate::kKeepsOwnEnd},
               {JobState::kFailed, JobState::kQueued, Fate::kTakesResult},
               {JobState::kFailed, JobState::kSucceeded, Fate::kMoves},
               {JobState::kFailed, JobState::kCancelled, Fate::kKeepsOwnEnd}};
  for (const auto& [here, comes, expected] : cases) {
    MergePlan plan = plan_with(here);
    EXPECT_EQ(fate(plan, 2, comes), expected) << job_state_name(here) << ", " << job_state_name(comes);
  }
  MergePlan plan = plan_with(JobState::kQueued);
  EXPECT_EQ(fate(plan, 2, JobState::kSucceeded), Fate::kEndsOther);
  EXPECT_EQ(fate(plan, 3, JobState::kQueued), Fate::kTakesResult) << "the other has ended by the decision before";
}

}  // namespace merge_plan_test
}  // namespace optserve::journal
