// Each move that a job's life allows, each that it refuses, and what the table of jobs counts.
#include "scheduler/jobs/job_life.h"

#include <gtest/gtest.h>

#include <string>

#include "scheduler/jobs/job_table.h"

namespace optserve::scheduler {
namespace job_life_test {

constexpr Stage kAllStages[] = {Stage::kAccepted, Stage::kDelayed,  Stage::kEncoding, Stage::kWaiting,
                                Stage::kLeased,   Stage::kDecoding, Stage::kEnded};
static_assert(std::size(kAllStages) == kStages);

// A job that has come to `stage` by moves that are allowed.
class Life {
 public:
  explicit Life(Stage stage) {
    auto owned = std::make_unique<Job>();
    owned->id.bytes.fill(1);
    owned->spec().ttl_ms = 1'000;
    job = &table.add(std::move(owned));
    if (stage == Stage::kLeased) move(Stage::kWaiting);
    if (stage != Stage::kAccepted) move(stage);
  }
  void move(Stage to) {
    if (to == Stage::kDelayed) {
      table.delay(*job, Instant(seconds(1)));
    } else if (to == Stage::kEnded) {
      table.end(*job);
    } else {
      table.move(*job, to);
    }
  }
  JobTable table;
  Job* job = nullptr;
};

using Pair = std::pair<Stage, Stage>;
std::string name_of(const ::testing::TestParamInfo<Pair>& info) {
  return std::string(stage_name(info.param.first)) + "_to_" + std::string(stage_name(info.param.second));
}
std::vector<Pair> moves(bool allowed) {
  std::vector<Pair> found;
  for (const Stage from : kAllStages) {
    for (const Stage to : kAllStages) {
      if (can_move(from, to) == allowed) found.emplace_back(from, to);
    }
  }
  return found;
}

class AllowedMove : public ::testing::TestWithParam<Pair> {};
TEST_P(AllowedMove, IsMadeAndCounted) {
  const auto [from, to] = GetParam();
  Life life(from);
  EXPECT_EQ(life.table.count(from), 1u);
  life.move(to);
  EXPECT_EQ(life.job->stage(), to);
  EXPECT_EQ(life.table.count(from), 0u);
  EXPECT_EQ(life.table.count(to), to == Stage::kEnded ? 0u : 1u);
  EXPECT_EQ(life.table.size(), to == Stage::kEnded ? 0u : 1u);
  EXPECT_EQ(life.job->life.last_open_stage(), to == Stage::kEnded ? from : to);
}
INSTANTIATE_TEST_SUITE_P(All, AllowedMove, ::testing::ValuesIn(moves(true)), name_of);

class RefusedMoveDeathTest : public ::testing::TestWithParam<Pair> {};
TEST_P(RefusedMoveDeathTest, EndsTheProcess) {
  const auto [from, to] = GetParam();
  Life life(from);
  const std::string expected =
      "a job cannot move from " + std::string(stage_name(from)) + " to " + std::string(stage_name(to));
  EXPECT_DEATH(life.move(to), expected);
}
INSTANTIATE_TEST_SUITE_P(All, RefusedMoveDeathTest, ::testing::ValuesIn(moves(false)), name_of);

// The table is written by hand; these are the rules that it follows.
TEST(JobLife, EndsOnceAndComesFromTheQueueToAWorker) {
  for (const Stage stage : kAllStages) {
    EXPECT_EQ(can_move(stage, Stage::kEnded), stage != Stage::kEnded) << stage_name(stage);
    EXPECT_FALSE(can_move(Stage::kEnded, stage)) << stage_name(stage);
    EXPECT_FALSE(can_move(stage, Stage::kAccepted)) << stage_name(stage);
    EXPECT_FALSE(can_move(stage, stage)) << stage_name(stage);
    EXPECT_EQ(can_move(stage, Stage::kLeased), stage == Stage::kWaiting) << stage_name(stage);
    EXPECT_EQ(can_move(Stage::kDecoding, stage), stage == Stage::kEnded) << stage_name(stage);
  }
}

TEST(JobLife, ADelayEndsOnceAndNotAfterTheJob) {
  Life life(Stage::kDelayed);
  EXPECT_EQ(life.table.take_undelayed(Instant(milliseconds(999))), nullptr);
  EXPECT_EQ(life.table.take_undelayed(Instant(seconds(1))), life.job);
  EXPECT_EQ(life.table.take_undelayed(Instant(seconds(1))), nullptr);
  Life ended(Stage::kDelayed);
  ended.move(Stage::kEnded);
  EXPECT_EQ(ended.table.take_undelayed(Instant(seconds(1))), nullptr);
}

}  // namespace job_life_test
}  // namespace optserve::scheduler
