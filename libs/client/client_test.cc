#include "client/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <future>
#include <mutex>

#include "base/limits.h"
#include "base/utf8.h"
#include "client/async_client.h"
#include "client/fake_scheduler.h"
#include "client/future.h"

namespace optserve::client {
namespace client_test {

class ClientTest : public ::testing::Test {
 protected:
  ClientTest() { scheduler->start(); }
  ClientOptions options() const {
    ClientOptions result;
    result.endpoints = scheduler->endpoint();
    return result;
  }
  // Kills the scheduler and starts another one that knows the same jobs.
  void restart_scheduler() {
    scheduler->stop();
    const auto jobs = scheduler->jobs;
    const std::string endpoint = scheduler->endpoint();
    scheduler.reset();
    scheduler = std::make_unique<FakeScheduler>(faults, endpoint, ++term);
    scheduler->jobs = jobs;
    scheduler->start();
  }
  void expect_generates(Client& client, const std::string& prompt) {
    std::string text;
    const auto result = client.generate(job_of(prompt), [&](std::string_view piece) { text += piece; });
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_EQ(result.value().state, JobState::kSucceeded);
    EXPECT_EQ(text, FakeScheduler::text_of(prompt));
    EXPECT_EQ(result.value().text, text);
  }

  FakeScheduler::Faults faults;
  uint64_t term = 1;
  std::unique_ptr<FakeScheduler> scheduler = std::make_unique<FakeScheduler>(faults);
};

TEST_F(ClientTest, Generates) {
  Client client(options());
  expect_generates(client, "Once");
  expect_generates(client, "upon");
}

TEST_F(ClientTest, GeneratesFromManyThreadsAtOnce) {
  Client client(options());
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] { expect_generates(client, "thread " + std::to_string(i)); });
  }
  for (auto& thread : threads) thread.join();
}

TEST_F(ClientTest, LostSubmitReplies) {
  faults.drop_submit_replies = 2;
  Client client(options());
  expect_generates(client, "Once");
  EXPECT_EQ(scheduler->submits, 3);
}

TEST_F(ClientTest, LostAndRepeatedEvents) {
  faults.drop_every = 7;
  faults.repeat_events = true;
  Client client(options());
  expect_generates(client, "Once");
  EXPECT_GT(scheduler->attaches, 0);
}

TEST_F(ClientTest, SchedulerRestartInMidStream) {
  Client client(options());
  std::mutex mutex;
  std::condition_variable begun;
  size_t received = 0;
  std::thread killer([&] {
    {
      std::unique_lock lock(mutex);
      begun.wait(lock, [&] { return received > 50; });
    }
    restart_scheduler();
  });
  std::string text;
  const auto result = client.generate(job_of("Once"), [&](std::string_view piece) {
    const std::lock_guard lock(mutex);
    text += piece;
    received = text.size();
    begun.notify_one();
  });
  killer.join();
  ASSERT_TRUE(result.ok()) << result.refusal().message;
  EXPECT_EQ(text, FakeScheduler::text_of("Once"));
  EXPECT_GT(scheduler->attaches, 0);
}

TEST_F(ClientTest, StartsBeforeTheScheduler) {
  const ClientOptions where = options();
  scheduler->stop();
  scheduler.reset();
  Client client(where);
  std::thread starter([&] {
    std::this_thread::sleep_for(milliseconds(50));  // several attempts to connect
    scheduler = std::make_unique<FakeScheduler>(faults, where.endpoints);
    scheduler->start();
  });
  expect_generates(client, "Once");
  starter.join();
}

TEST_F(ClientTest, BusyIsTriedAgainWithinTheTimeout) {
  faults.refuse_submits = 2;
  Client client(options());
  expect_generates(client, "Once");
  EXPECT_EQ(faults.refuse_submits, 0);
}

TEST_F(ClientTest, BusyIsReportedWhenTheTimeoutIsOver) {
  faults.refuse_submits = 1'000'000;
  ClientOptions impatient = options();
  impatient.timeout = milliseconds(700);
  Client client(impatient);
  const auto result = client.generate(job_of("Once"));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.refusal().code, ErrorCode::kBusy);
  faults.refuse_submits = 0;
  expect_generates(client, "again");
}

TEST_F(ClientTest, BusyIsReportedAtOnceToWhoDoesNotWait) {
  faults.refuse_submits = 1'000'000;
  ClientOptions hasty = options();
  hasty.waits_while_busy = false;
  Client client(hasty);
  const auto result = client.generate(job_of("Once"));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.refusal().code, ErrorCode::kBusy);
  EXPECT_EQ(scheduler->submits, 1);
}

TEST_F(ClientTest, SilentSchedulerEndsInTheTimeout) {
  faults.mute = true;
  ClientOptions impatient = options();
  impatient.timeout = milliseconds(700);
  Client client(impatient);
  const auto begun = std::chrono::steady_clock::now();
  const auto status = client.status().at(0).answer;
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.refusal().code, ErrorCode::kUnavailable);
  EXPECT_THAT(status.refusal().message, ::testing::HasSubstr(impatient.endpoints));
  EXPECT_LT(std::chrono::steady_clock::now() - begun, seconds(5));
}

TEST_F(ClientTest, BadEndpointIsAnError) {
  ClientOptions bad;
  bad.endpoints = "nonsense";
  EXPECT_THAT([&] { Client client(bad); }, ::testing::ThrowsMessage<Error>(::testing::HasSubstr("nonsense")));
}

TEST_F(ClientTest, CancelGetAndStatus) {
  faults.stalled = true;
  Client client(options());
  const auto outcomes = client.submit({job_of("Once")});
  ASSERT_TRUE(outcomes.ok());
  const JobId id = *outcomes.value().at(0).job;
  EXPECT_EQ(client.get(id).value().state, JobState::kRunning);
  EXPECT_EQ(client.cancel(id).value().state, JobState::kCancelled);
  EXPECT_EQ(client.wait(id, seconds(1)).value().state, JobState::kCancelled);
  EXPECT_EQ(client.get(JobId{}).refusal().code, ErrorCode::kNotFound);
  EXPECT_EQ(client.status().at(0).answer.value().term, 1u);
}

TEST_F(ClientTest, WaitEndsWithTheJobOrTheTime) {
  faults.stalled = true;
  Client client(options());
  const JobId id = *client.submit({job_of("Once")}).value().at(0).job;
  EXPECT_EQ(client.wait(id, milliseconds(200)).value().state, JobState::kRunning);
  faults.stalled = false;
  const auto result = client.wait(id, seconds(10));
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result.value().text, FakeScheduler::text_of("Once"));
  EXPECT_EQ(client.wait(JobId{}, seconds(1)).refusal().code, ErrorCode::kNotFound);
}

TEST_F(ClientTest, AnotherClientAttaches) {
  JobId id;
  {
    Client first(options());
    id = *first.submit({job_of("Once")}).value().at(0).job;
  }
  Client second(options());
  std::promise<JobResult> ended;
  std::string text;
  JobStream stream;
  stream.on_text = [&](std::string_view piece, const protocol::JobEvent&) { text += piece; };
  stream.on_finished = [&](const JobResult& result) { ended.set_value(result); };
  ASSERT_TRUE(second.attach(id, 10, stream).ok());
  EXPECT_EQ(ended.get_future().get().state, JobState::kSucceeded);
  EXPECT_EQ(text, FakeScheduler::text_of("Once").substr(10));
  EXPECT_EQ(second.attach(JobId{}, 0, stream).refusal().code, ErrorCode::kNotFound);
}

TEST_F(ClientTest, ClosingEndsOpenStreams) {
  faults.stalled = true;
  int lost = 0, finished = 0;
  {
    Client client(options());
    JobStream stream;
    stream.on_lost = [&](const JobId&, const Refusal&) { ++lost; };
    stream.on_finished = [&](const JobResult&) { ++finished; };
    ASSERT_TRUE(client.submit({job_of("a"), job_of("b")}, stream).ok());
  }
  EXPECT_EQ(lost, 2);
  EXPECT_EQ(finished, 0);
}

// A client whose callback hangs does not read. The scheduler notices this, but other clients do not.
TEST_F(ClientTest, SlowClientHoldsUpNobody) {
  std::mutex mutex;
  std::condition_variable released;
  bool go_on = false;
  Client slow(options());
  std::string slow_text;
  std::promise<JobResult> slow_end;
  JobStream stream;
  stream.on_text = [&](std::string_view piece, const protocol::JobEvent&) {
    std::unique_lock lock(mutex);
    released.wait(lock, [&] { return go_on; });
    slow_text += piece;
  };
  stream.on_finished = [&](const JobResult& result) { slow_end.set_value(result); };
  ASSERT_TRUE(slow.submit({job_of("slow")}, stream).ok());
  Client good(options());
  for (int i = 0; i < 3; ++i) expect_generates(good, "good " + std::to_string(i));
  {
    const std::lock_guard lock(mutex);
    go_on = true;
  }
  released.notify_all();
  slow_end.get_future().get();
  EXPECT_EQ(slow_text, FakeScheduler::text_of("slow"));
}

using ClientDeathTest = ClientTest;
TEST_F(ClientDeathTest, CallbackMustNotCallTheClient) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        Client client(options());
        (void)client.generate(job_of("Once"), [&](std::string_view) { (void)client.status(); });
      },
      "waits for an answer of the same client");
}

TEST_F(ClientTest, FuturesOfStartedJobsHaveTheirResults) {
  Client client(options());
  std::vector<std::future<Result<JobResult>>> futures;
  for (int i = 0; i < 20; ++i) futures.push_back(client.start(job_of("prompt " + std::to_string(i))));
  for (int i = 0; i < 20; ++i) {
    const auto result = futures[static_cast<size_t>(i)].get();
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_EQ(result.value().text, FakeScheduler::text_of("prompt " + std::to_string(i)));
  }
  std::string streamed;
  auto future = client.start(job_of("streamed"), [&](std::string_view piece) { streamed += piece; });
  EXPECT_EQ(future.get().value().text, streamed);
  const auto status = future_of<Answers<SystemStatus>>([&](auto done) { client.async().status(done); }).get();
  ASSERT_EQ(status.size(), 1U);
  EXPECT_TRUE(status[0].answer.ok());
}

TEST_F(ClientTest, FuturesOfRefusedAndAbandonedJobsHaveTheReason) {
  ClientOptions impatient = options();
  impatient.waits_while_busy = false;
  auto client = std::make_unique<Client>(impatient);
  faults.refuse_submits = 1;
  const auto refused = client->start(job_of("refused")).get();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.refusal().code, ErrorCode::kBusy);
  scheduler->stop();
  auto open = client->start(job_of("never sent"));
  client.reset();
  const auto abandoned = open.get();
  ASSERT_FALSE(abandoned.ok());
  EXPECT_EQ(abandoned.refusal().code, ErrorCode::kCancelled);
}

}  // namespace client_test
}  // namespace optserve::client
