#include "engine/draft/draft_policy.h"

#include <gtest/gtest.h>

namespace optserve::engine {
namespace draft_policy_test {

// Does steps, and rounds where the policy wants them. Returns how many were rounds.
int run(DraftPolicy& policy, int steps, int32_t accepted, double draft_ms, double step_ms) {
  int rounds = 0;
  for (int i = 0; i < steps; ++i) {
    if (!policy.pays()) continue;
    ++rounds;
    policy.drafted(1, draft_ms);
    policy.accepted(accepted);
    policy.stepped(step_ms);
  }
  return rounds;
}

TEST(DraftPolicy, EveryStepIsARoundWhileGuessesPay) {
  DraftPolicy policy;
  EXPECT_EQ(run(policy, 1'000, 2, 1.0, 4.0), 1'000);  // three tokens in 5 ms, otherwise in 12
}

TEST(DraftPolicy, GuessesThatAreWrongSoonPause) {
  DraftPolicy policy;
  EXPECT_LE(run(policy, 1'000, 0, 1.0, 4.0), 32);
  EXPECT_LE(run(policy, 10'000, 0, 1.0, 4.0), 32);
}

TEST(DraftPolicy, GuessesThatTakeTooLongPauseEvenIfRight) {
  DraftPolicy policy;
  EXPECT_LE(run(policy, 1'000, 2, 9.0, 4.0), 32);  // three tokens in 13 ms, otherwise in 12
}

TEST(DraftPolicy, ATextThatBecomesGuessableIsNoticed) {
  DraftPolicy policy;
  run(policy, 500, 0, 1.0, 4.0);
  run(policy, 2'000, 3, 1.0, 4.0);
  EXPECT_EQ(run(policy, 1'000, 3, 1.0, 4.0), 1'000);
}

TEST(DraftPolicy, CountsEachSequenceOfARound) {
  DraftPolicy policy;
  int rounds = 0;
  for (int i = 0; i < 1'000; ++i) {
    if (!policy.pays()) continue;
    ++rounds;
    policy.drafted(4, 2.0);
    policy.accepted(2);  // one of four sequences gets two more tokens: 6 instead of 4, in 6 ms instead of 4
    policy.stepped(4.0);
  }
  EXPECT_LE(rounds, 32);
}

}  // namespace draft_policy_test
}  // namespace optserve::engine
