#include "client/async_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "client/fake_scheduler.h"

namespace optserve::client {
namespace async_client_test {

using protocol::JobResult;
using protocol::JobState;

class AsyncClientTest : public ::testing::Test {
 protected:
  AsyncClientTest() { scheduler.start(); }
  ClientOptions options() const {
    ClientOptions result;
    result.endpoints = scheduler.endpoint();
    return result;
  }

  FakeScheduler::Faults faults;
  FakeScheduler scheduler{faults};
};

TEST_F(AsyncClientTest, SubmitsAndStreamsWithoutWaiting) {
  std::promise<Submission> submitted;
  std::promise<JobResult> ended;
  std::string text;
  JobStream stream;
  stream.on_text = [&](std::string_view piece, const protocol::JobEvent&) { text += piece; };
  stream.on_finished = [&](const JobResult& result) { ended.set_value(result); };
  AsyncClient client(options());
  client.submit({job_of("Once")}, stream, [&](Submission submission) { submitted.set_value(std::move(submission)); });
  const Submission submission = submitted.get_future().get();
  ASSERT_TRUE(submission.outcomes.ok()) << submission.outcomes.refusal().message;
  EXPECT_EQ(submission.follows.size(), 1u);
  const JobResult result = ended.get_future().get();
  EXPECT_EQ(result.job, submission.outcomes.value().at(0).job);
  EXPECT_EQ(text, FakeScheduler::text_of("Once"));
}

TEST_F(AsyncClientTest, ACallbackStartsTheNextCall) {
  faults.stalled = true;
  std::promise<Result<JobResult>> cancelled;
  AsyncClient client(options());
  client.submit({job_of("Once")}, {}, [&](Submission submission) {
    EXPECT_TRUE(client.is_own_thread());
    const JobId id = *submission.outcomes.value().at(0).job;
    client.get(id, [&, id](Result<JobResult> state) {
      EXPECT_EQ(state.value().state, JobState::kRunning);
      client.cancel(id, [&](Result<JobResult> result) { cancelled.set_value(std::move(result)); });
    });
  });
  EXPECT_FALSE(client.is_own_thread());
  EXPECT_EQ(cancelled.get_future().get().value().state, JobState::kCancelled);
}

TEST_F(AsyncClientTest, AStreamThatIsGivenUpDeliversNothingMore) {
  faults.stalled = true;
  std::atomic<int> ends{0};
  JobStream stream;
  stream.on_finished = [&](const JobResult&) { ++ends; };
  stream.on_lost = [&](const JobId&, const Refusal&) { ++ends; };
  std::promise<Submission> submitted;
  std::promise<void> given_up;
  {
    AsyncClient client(options());
    client.submit({job_of("Once")}, stream, [&](Submission submission) { submitted.set_value(std::move(submission)); });
    client.unfollow(submitted.get_future().get().follows, [&] { given_up.set_value(); });
    given_up.get_future().get();
  }
  EXPECT_EQ(ends, 0);
}

TEST_F(AsyncClientTest, AStatusThatNobodyGivesIsGivenUpInTheTimeThatWasAskedFor) {
  faults.mute = true;
  AsyncClient client(options());
  std::promise<Answers<protocol::SystemStatus>> answered;
  const Instant begin = client.clock().now();
  client.status([&](Answers<protocol::SystemStatus> status) { answered.set_value(std::move(status)); },
                std::chrono::milliseconds(200));
  EXPECT_EQ(answered.get_future().get().at(0).answer.refusal().code, ErrorCode::kUnavailable);
  EXPECT_LT(client.clock().now() - begin, seconds(3));  // of the usual ten
}

TEST_F(AsyncClientTest, ClosingAnswersWhatIsOpen) {
  faults.mute = true;
  std::vector<ErrorCode> answers;
  {
    AsyncClient client(options());
    client.submit({job_of("Once")}, {}, [&](Submission submission) {
      answers.push_back(submission.outcomes.ok() ? ErrorCode::kInternal : submission.outcomes.refusal().code);
    });
    client.get(JobId{}, [&](Result<JobResult> state) { answers.push_back(state.refusal().code); });
    client.status(
        [&](Answers<protocol::SystemStatus> status) { answers.push_back(status.at(0).answer.refusal().code); });
  }
  EXPECT_THAT(answers,
              ::testing::UnorderedElementsAre(ErrorCode::kCancelled, ErrorCode::kCancelled, ErrorCode::kCancelled));
}

}  // namespace async_client_test
}  // namespace optserve::client
