// The calls of operators, and the client with several schedulers, over sockets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <future>
#include <set>

#include "client/client.h"
#include "client/fake_scheduler.h"

namespace optserve::client {
namespace client_operator_test {

using protocol::ControlAction;
using protocol::ControlScope;
using protocol::JobSpec;
using protocol::JobState;
using protocol::QueueMode;
using ::testing::HasSubstr;

JobSpec job(const std::string& prompt, const std::string& group = {}) {
  JobSpec spec;
  spec.model = "m";
  spec.prompt = prompt;
  spec.group = group;
  spec.ttl_ms = 20'000;
  return spec;
}

class SeveralSchedulersTest : public ::testing::Test {
 protected:
  SeveralSchedulersTest() {
    for (auto& scheduler : schedulers) {
      scheduler = std::make_unique<FakeScheduler>(faults);
      scheduler->start();
      if (!options.endpoints.empty()) options.endpoints += ",";
      options.endpoints += scheduler->endpoint();
    }
  }
  // Jobs with text of some length, on all three schedulers.
  std::vector<JobId> submit_many(Client& client, const std::string& group) {
    std::vector<JobSpec> specs;
    for (int i = 0; i < 60; ++i) specs.push_back(job(std::to_string(i), group));
    std::vector<JobId> ids;
    for (const auto& outcome : client.submit(specs).value()) ids.push_back(outcome.job.value());
    return ids;
  }

  FakeScheduler::Faults faults;
  ClientOptions options{.endpoints = ""};
  std::array<std::unique_ptr<FakeScheduler>, 3> schedulers;
};

TEST_F(SeveralSchedulersTest, ShareTheJobsAndAreAskedForTheirOwn) {
  Client client(options);
  const auto ids = submit_many(client, "");
  for (const auto& scheduler : schedulers) EXPECT_GT(scheduler->submits, 0);
  for (const JobId& id : ids) {
    const auto result = client.wait(id, seconds(10));
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result.value().state, JobState::kSucceeded);
  }
  Client other(options);
  EXPECT_TRUE(other.get(ids.front()).ok());
  EXPECT_EQ(other.get(Id128::random()).refusal().code, ErrorCode::kNotFound);
}

TEST_F(SeveralSchedulersTest, GenerateThoughOneIsGone) {
  schedulers[1].reset();
  Client client(options);
  for (int i = 0; i < 6; ++i) {
    const auto result = client.generate(job(std::to_string(i)));
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    EXPECT_EQ(result.value().text, FakeScheduler::text_of(std::to_string(i)));
  }
  const auto status = client.status();
  ASSERT_EQ(status.size(), 3u);
  EXPECT_TRUE(status[0].answer.ok());
  EXPECT_FALSE(status[1].answer.ok());
  EXPECT_THAT(status[1].answer.refusal().message, HasSubstr(status[1].endpoint));
  const auto unknown = client.get(Id128::random());
  EXPECT_EQ(unknown.refusal().code, ErrorCode::kUnavailable);
}

TEST_F(SeveralSchedulersTest, AGroupIsCountedAndCancelledOnAll) {
  faults.stalled = true;
  Client client(options);
  submit_many(client, "g");
  submit_many(client, "other");
  EXPECT_EQ(client.group("", "g").value().open, 60);
  const auto cancelled = client.cancel_group("", "g").value();
  EXPECT_EQ(cancelled.open, 0);
  EXPECT_EQ(cancelled.cancelled, 60);
  EXPECT_EQ(client.group("", "other").value().open, 60);
  EXPECT_EQ(client.group("", "none").value(), protocol::GroupStatus{});
}

TEST_F(SeveralSchedulersTest, ListsArePagedByScheduler) {
  faults.stalled = true;
  Client client(options);
  const auto ids = submit_many(client, "g");
  std::set<JobId> seen;
  ListPosition after;
  int pages = 0;
  do {
    const auto answers = client.list({.job = {}, .state = {}, .tenant = {}, .model = {}, .group = "g"}, 7, after);
    ++pages;
    after.clear();
    for (const auto& [endpoint, answer] : answers) {
      const protocol::JobList& list = answer.value();
      EXPECT_LE(list.jobs.size(), 7u);
      for (const auto& summary : list.jobs) EXPECT_TRUE(seen.insert(summary.job).second);
      if (list.more) after[endpoint] = list.jobs.back().order;
    }
  } while (!after.empty());
  EXPECT_EQ(seen, std::set<JobId>(ids.begin(), ids.end()));
  EXPECT_GT(pages, 2);
}

TEST_F(SeveralSchedulersTest, ControlReachesAllAndBackupTellsEachFile) {
  Client client(options);
  for (const auto& [endpoint, answer] : client.control(ControlAction::kPause, ControlScope::kQueue)) {
    EXPECT_EQ(answer.value().mode, QueueMode::kPaused);
  }
  for (const auto& [endpoint, answer] : client.status()) EXPECT_EQ(answer.value().mode, QueueMode::kPaused);
  for (const auto& [endpoint, answer] : client.control(ControlAction::kResume, ControlScope::kQueue)) {
    EXPECT_EQ(answer.value().mode, QueueMode::kOpen);
  }
  const auto backups = client.backup(seconds(10));
  ASSERT_EQ(backups.size(), 3u);
  for (const auto& [endpoint, answer] : backups) EXPECT_EQ(answer.value().bytes, 4096);
}

TEST_F(SeveralSchedulersTest, DeadJobsAreRequeuedAndEndedOnesPurged) {
  faults.stalled = true;
  Client client(options);
  const auto ids = submit_many(client, "g");
  EXPECT_EQ(client.requeue(ids[0]).refusal().code, ErrorCode::kNotFound);
  for (auto& scheduler : schedulers) scheduler->kill_jobs();
  EXPECT_EQ(client.get(ids[0]).value().state, JobState::kDead);
  EXPECT_EQ(client.requeue(ids[0]).value().state, JobState::kQueued);
  protocol::JobFilter dead;
  dead.state = JobState::kDead;
  EXPECT_EQ(client.purge(dead).value(), 59);
  EXPECT_EQ(client.get(ids[1]).refusal().code, ErrorCode::kNotFound);
  EXPECT_TRUE(client.get(ids[0]).ok());
}

// With a slow reader, the scheduler never has more in flight than the window.
TEST_F(SeveralSchedulersTest, TheWindowBoundsWhatIsOnTheWay) {
  options.window_bytes = 2'000;
  Client client(options);
  std::atomic<size_t> taken{0};
  JobStream stream;
  std::promise<void> ended;
  stream.on_text = [&](std::string_view piece, const protocol::JobEvent&) {
    std::this_thread::sleep_for(milliseconds(1));
    taken += piece.size();
  };
  stream.on_finished = [&](const protocol::JobResult&) { ended.set_value(); };
  ASSERT_TRUE(client.submit({job("slowly")}, stream).ok());
  ended.get_future().get();
  EXPECT_EQ(taken, FakeScheduler::text_of("slowly").size());
  uint64_t most = 0;
  for (const auto& scheduler : schedulers) most = std::max<uint64_t>(most, scheduler->most_on_the_way);
  EXPECT_GT(most, 0u);
  EXPECT_LE(most, 2'000u);
}

}  // namespace client_operator_test
}  // namespace optserve::client
