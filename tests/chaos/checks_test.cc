// The checks of a chaos run must find every kind of broken promise. Each test puts one into a story without faults.
#include "checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "job_plan.h"
#include "support/temporary_folder.h"

namespace optserve::chaos {
namespace checks_test {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kSeed = 5;
constexpr uint64_t kJob = 3;
const std::string kId(32, 'a');

// One job of one client that was streamed in two pieces and succeeded.
class Checks : public ::testing::Test {
 protected:
  Checks() {
    evidence_.seed = kSeed;
    for (size_t i = 0; i < kVariants; ++i) evidence_.references.push_back("text of variant " + std::to_string(i));
    const std::string& text = evidence_.references[plan_.variant];
    JobStory story;
    story.intended_ms = 100;
    story.accepted_ms = 110;
    story.ids = {kId};
    Follow follow;
    follow.pieces = {{120, 0, text.substr(0, 5)}, {130, 5, text.substr(5)}};
    follow.finals = {{140, "succeeded", 1, 0, text, ""}};
    story.follows = {follow};
    evidence_.ledgers = {{{kJob, story}}};
    evidence_.answers[kId] = {true, "succeeded", text, "", 1};
  }

  JobStory& story() { return evidence_.ledgers[0].at(kJob); }
  Follow& follow() { return story().follows[0]; }
  Answer& answer() { return evidence_.answers[kId]; }
  // The same end in the ledger and in the journal.
  void end_as(const std::string& state) { follow().finals[0].state = answer().state = state; }
  void expect_violation(const std::string& what) { EXPECT_THAT(check_jobs(evidence_), Contains(HasSubstr(what))); }

  PlannedJob plan_ = plan_job(kSeed, 0, kJob);
  Evidence evidence_;
};

TEST_F(Checks, AFaultlessStoryHasNoViolation) { EXPECT_THAT(check_jobs(evidence_), IsEmpty()); }

TEST_F(Checks, AJobWithoutEnd) {
  follow().finals.clear();
  expect_violation("never ended");
}

TEST_F(Checks, AJobThatTheSystemDoesNotKnow) {
  answer().found = false;
  expect_violation("is lost");
}

TEST_F(Checks, AJobWithoutAnAnswer) {
  story() = {};
  expect_violation("neither accepted nor refused");
}

TEST_F(Checks, TwoJobsUnderOneKey) {
  story().ids.push_back(std::string(32, 'b'));
  expect_violation("several ids");
}

TEST_F(Checks, AnotherPayloadUnderAKey) {
  story().conflicts = {"idempotency_conflict"};
  EXPECT_THAT(check_jobs(evidence_), IsEmpty());
  story().conflicts = {"accepted"};
  expect_violation("another payload");
}

TEST_F(Checks, ARefusalThatIsNotForNow) {
  story() = {};
  story().codes = {"busy"};
  EXPECT_THAT(check_jobs(evidence_), IsEmpty());
  story().codes = {"bad_request"};
  expect_violation("was refused: bad_request");
}

TEST_F(Checks, OnlyAJobOfShortLifeIsRefusedForItsTime) {
  ASSERT_FALSE(plan_.is_short_lived);
  story() = {};
  story().codes = {"deadline_exceeded"};
  expect_violation("was refused: deadline_exceeded");

  uint64_t short_lived = kJob;
  while (!plan_job(kSeed, 0, short_lived).is_short_lived) ++short_lived;
  evidence_.ledgers = {{{short_lived, story()}}};
  EXPECT_THAT(check_jobs(evidence_), IsEmpty());
}

TEST_F(Checks, OnlyAJobOfShortLifeExpires) {
  end_as("expired");
  expect_violation("ended as expired");
}

TEST_F(Checks, AGapAndARepeat) {
  follow().pieces[1].offset = 6;
  expect_violation("gap at byte 5");
  follow().pieces[1].offset = 4;
  expect_violation("repeat at byte 5");
}

TEST_F(Checks, AnotherTextAfterAReconnection) {
  Follow again = follow();
  again.pieces[0].text[0] = '?';
  follow().finals.clear();
  story().follows.push_back(again);
  expect_violation("changed text");
}

TEST_F(Checks, AReconnectionThatBeginsElsewhere) {
  Follow again = follow();
  again.from = 5;
  again.pieces.erase(again.pieces.begin());
  follow().finals.clear();
  follow().pieces.pop_back();
  story().follows.push_back(again);
  EXPECT_THAT(check_jobs(evidence_), IsEmpty());
  story().follows[1].from = 3;
  expect_violation("gap at byte 3");
}

TEST_F(Checks, TextAfterTheEndAndASecondEnd) {
  follow().piece_after_final = true;
  expect_violation("after its end");
  follow().finals.push_back(follow().finals[0]);
  expect_violation("ended 2 times");
}

TEST_F(Checks, AnEndThatIsNotWhatWasStreamed) {
  follow().finals[0].text += "!";
  expect_violation("streamed");
}

TEST_F(Checks, AnotherTextThanWithoutFaults) {
  evidence_.references[plan_.variant] += " and more";
  expect_violation("instead of");
  end_as("dead");
  EXPECT_THAT(check_jobs(evidence_), IsEmpty());
  evidence_.references[plan_.variant] = "something else";
  expect_violation("does not begin");
}

TEST_F(Checks, TooManyAttempts) {
  follow().finals[0].attempts = answer().attempts = plan_.spec.max_attempts + 1;
  expect_violation("attempts");
}

TEST_F(Checks, AFailureAndACancelThatNobodyAskedFor) {
  end_as("failed");
  expect_violation("ended as failed");
  end_as("cancelled");
  expect_violation("ended as cancelled");
  story().cancel_asked = true;
  EXPECT_THAT(check_jobs(evidence_), IsEmpty());
}

TEST_F(Checks, ACancelThatWasAnsweredOtherwise) {
  story().cancel_asked = true;
  story().cancel_states = {"cancelled"};
  expect_violation("to cancel");
}

TEST_F(Checks, AnotherEndInTheJournal) {
  answer().state = "dead";
  expect_violation("is stored as dead");
  answer() = {true, "succeeded", "text", "", 1};
  expect_violation("is stored with 'text'");
  answer() = {true, "succeeded", follow().finals[0].text, "", 2};
  expect_violation("number of attempts");
}

TEST_F(Checks, AStreamThatWasLost) {
  follow().lost = "not_found: never heard of it";
  expect_violation("never heard of it");
}

TEST_F(Checks, CountsAndTimes) {
  const std::vector<FaultRecord> records = {
      {"flood", "300 connections", 105, 0}, {"flood", "300 connections", 111, 0}, {"kill-client", "client-1", 0, 0}};
  const auto recovery = recovery_times(evidence_.ledgers, records);
  ASSERT_EQ(recovery.size(), 1u);  // nothing was accepted after the second flood, nor by client 1
  EXPECT_EQ(recovery.at("flood").count, 1);
  EXPECT_EQ(recovery.at("flood").max_ms, 35);
  EXPECT_EQ(longest_silence_ms(evidence_.ledgers, 100, 200), 60);
  EXPECT_EQ(silence_of_retried(evidence_.ledgers, {}).count, 0);
  follow().finals[0].attempts = 2;
  follow().finals[0].at_ms = 200;
  EXPECT_EQ(silence_of_retried(evidence_.ledgers, {}).max_ms, 70);
  const std::vector<FaultRecord> pauses = {{"stop-client", "client-0", 150, 20},
                                           {"stop-client", "client-1", 130, 70},
                                           {"stop-scheduler", "scheduler", 160, 20}};
  EXPECT_EQ(silence_of_retried(evidence_.ledgers, pauses).max_ms, 40);
  EXPECT_EQ(count_jobs(evidence_.ledgers).finals.at("succeeded"), 1);
}

TEST(Ledger, ReadsWhatWasWritten) {
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "ledger", id = std::string(32, 'c');
  protocol::JobResult result;
  result.state = protocol::JobState::kDead;
  result.attempts = 3;
  result.text = "a \n\xc3\xa4";
  result.losses = {"its connection ended"};
  {
    LedgerWriter ledger(path);
    ledger.intend(7);
    ledger.no_answer(7, ErrorCode::kUnavailable);
    ledger.follow(7, 0);
    ledger.accept(7, *JobId::from_hex(id));
    ledger.piece(7, 0, "a \n");
  }
  LedgerWriter ledger(path);  // the next process of the client
  ledger.follow(7, 3);
  ledger.piece(7, 3, "\xc3\xa4");
  ledger.ask_cancel(7);
  ledger.cancelled(7, protocol::JobState::kDead);
  ledger.finish(7, result);
  ledger.piece(7, 5, "!");
  const Ledger read = read_ledger(path);
  ASSERT_EQ(read.size(), 1u);
  const JobStory& story = read.at(7);
  EXPECT_EQ(story.no_answers, 1);
  EXPECT_THAT(story.ids, ElementsAre(id));
  ASSERT_EQ(story.follows.size(), 2u);
  EXPECT_EQ(story.follows[1].from, 3u);
  EXPECT_TRUE(story.follows[1].piece_after_final);
  ASSERT_NE(story.final(), nullptr);
  EXPECT_EQ(story.final()->text, result.text);
  EXPECT_EQ(story.final()->losses, 1);
  EXPECT_THAT(story.cancel_states, ElementsAre("dead"));
  EXPECT_EQ(story.received(), 6u);
}

TEST(Ledger, NamesTheLineThatIsNone) {
  const test_support::TemporaryFolder folder;
  std::ofstream(folder / "ledger") << "I 1 1 \nnonsense\n";
  EXPECT_THROW(
      {
        try {
          read_ledger(folder / "ledger");
        } catch (const Error& error) {
          EXPECT_THAT(error.what(), HasSubstr("ledger:2"));
          throw;
        }
      },
      Error);
}

}  // namespace checks_test
}  // namespace optserve::chaos
