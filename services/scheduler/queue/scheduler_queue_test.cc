// Order, time, admission and places as peers see them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace scheduler_queue_test {

using protocol::JobState;
using ::testing::HasSubstr;

// A worker of one slot whose speed the scheduler knows: 10 tokens/s. `waiting` jobs are left in the queue behind the
// one that runs.
void make_busy(World& world, size_t waiting) {
  world.add_services();
  world.add_worker(world.worker, 2, 1);
  for (size_t i = 0; i <= waiting; ++i) world.submit(ids_spec("busy-" + std::to_string(i), "", 100));
  const auto item = world.dispatched(world.worker);
  for (uint32_t position = 0; position < 50; ++position) {
    send_tokens(world, world.worker, {item.lease}, position);
    world.heartbeat(world.tokenizer, 1);
    world.tokenize();
    world.advance(milliseconds(100));
  }
  world.sent.clear();
}

TEST(SchedulerTime, ADelayedJobStartsAfterItsDelayAndItsTimeCountsFromThen) {
  World world;
  world.add_services();
  auto spec = job_spec("a");
  spec.delay_ms = 20'000;
  spec.ttl_ms = 1'000;
  const JobId id = world.submit(spec);
  EXPECT_EQ(world.service->jobs().count(Stage::kDelayed), 1u);
  world.advance(milliseconds(19'900));
  EXPECT_TRUE(world.take<protocol::Encode>(world.tokenizer).empty());
  world.add_services();
  world.advance(milliseconds(100));
  world.tokenize();
  const auto item = world.dispatched(world.worker);
  EXPECT_EQ(item.job, id);
  EXPECT_EQ(item.remaining_ms, 1'000);
  world.advance(milliseconds(1'000));
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.state, JobState::kExpired);
}

TEST(SchedulerTime, ADelayedJobCanBeCancelled) {
  World world;
  world.add_services();
  auto spec = job_spec("a");
  spec.delay_ms = 2'000;
  world.send(world.client, protocol::Cancel{1, world.submit(spec)});
  EXPECT_EQ(world.only<protocol::JobStatus>(world.client).result.state, JobState::kCancelled);
  world.advance(seconds(3));
  EXPECT_TRUE(world.take<protocol::Encode>(world.tokenizer).empty());
}

TEST(SchedulerTime, AJobThatDoesNotStartWithinItsQueueTimeExpiresAndNamesTheLimit) {
  World world;
  world.add_services();
  world.add_worker(world.worker, 2, 1);
  auto first = ids_spec("first");
  first.queue_ms = 1'000;  // has started: its queue time is no limit any more
  world.submit(first);
  auto second = ids_spec("second");
  second.queue_ms = 1'000;
  world.submit(second);
  world.advance(milliseconds(1'100));
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.key, "second");
  EXPECT_EQ(result.state, JobState::kExpired);
  EXPECT_EQ(result.error, ErrorCode::kDeadlineExceeded);
  EXPECT_THAT(result.message, HasSubstr("did not start within its queue_ms of 1000 ms"));
  EXPECT_EQ(world.service->jobs().size(), 1u);
}

TEST(SchedulerTime, AnAttemptThatRunsTooLongExpiresAndItsLeaseIsRevoked) {
  World world;
  world.add_services();
  auto spec = ids_spec("a");
  spec.run_ms = 1'000;
  const JobId id = world.submit(spec);
  const auto item = world.dispatched(world.worker);
  EXPECT_EQ(item.remaining_ms, 1'000);
  world.advance(milliseconds(900));
  EXPECT_EQ(world.service->jobs().size(), 1u);
  world.advance(milliseconds(200));
  const auto result = world.only<protocol::JobFinished>(world.client).result;
  EXPECT_EQ(result.job, id);
  EXPECT_EQ(result.state, JobState::kExpired);
  EXPECT_THAT(result.message, HasSubstr("attempt 1 ran longer than the job's run_ms of 1000 ms"));
  EXPECT_EQ(world.only<protocol::Revoke>(world.worker).leases, std::vector<uint64_t>{item.lease});
}

TEST(SchedulerTime, EachAttemptHasItsOwnTimeToRun) {
  World world;
  world.add_services();
  world.add_worker(world.worker2, 3);
  auto spec = ids_spec("a");
  spec.run_ms = 1'000;
  world.submit(spec);
  const auto item = world.dispatched(world.worker);
  world.advance(milliseconds(900));
  world.send(world.worker, protocol::LeaseFailed{1, item.lease, ErrorCode::kInternal, "oom", true});
  EXPECT_EQ(world.dispatched(world.worker2).remaining_ms, 1'000);
  world.advance(milliseconds(900));
  EXPECT_EQ(world.service->jobs().size(), 1u);
}

TEST(SchedulerTime, AnExpiredJobIsNotLeasedEvenIfNoTickCameBefore) {
  World world;
  auto spec = ids_spec("a");
  spec.ttl_ms = 1'000;
  world.add_tokenizer(world.tokenizer, 1);
  world.submit(spec);
  world.clock.advance(seconds(2));
  world.add_worker(world.worker, 2);
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
  EXPECT_EQ(world.only<protocol::JobFinished>(world.client).result.state, JobState::kExpired);
}

TEST(SchedulerTime, ARestartKeepsDelaysAndLimits) {
  struct Case {
    int64_t age_ms;
    milliseconds starts_after;
    int64_t remaining_ms;
  };
  for (const Case& each : {Case{4'000, milliseconds(6'000), 30'000}, Case{-86'400'000, milliseconds(10'000), 30'000},
                           Case{15'000, milliseconds(0), 25'000}}) {
    SCOPED_TRACE(each.age_ms);
    journal::Recovery recovery = World::fresh();
    recovery.term = 2;
    journal::OpenJob open;
    open.accepted.job = JobId::random();
    open.accepted.order = 1;
    open.accepted.accepted_at_ms = journal::MemoryStore().time_ms(FakeClock().now()) - each.age_ms;
    open.accepted.spec = ids_spec("a");
    open.accepted.spec.delay_ms = 10'000;
    open.accepted.spec.ttl_ms = 30'000;
    recovery.open.push_back(open);
    recovery.next_order = 2;
    World world({}, nullptr, recovery);
    Duration passed{};
    std::vector<protocol::Dispatch> dispatched;
    for (; dispatched.empty() && passed < seconds(60); passed += milliseconds(100)) {
      world.advance(milliseconds(100));
      world.add_services();
      dispatched = world.take<protocol::Dispatch>(world.worker);
    }
    ASSERT_EQ(dispatched.size(), 1u);
    EXPECT_NEAR(static_cast<double>(passed / milliseconds(1)), static_cast<double>(each.starts_after.count()), 101);
    EXPECT_NEAR(static_cast<double>(dispatched[0].items[0].remaining_ms), static_cast<double>(each.remaining_ms), 101);
  }
}

TEST(SchedulerOrder, AnotherTenantsJobDoesNotWaitForAWholeBacklog) {
  World world;
  world.add_tokenizer(world.tokenizer, 1);
  for (int i = 0; i < 500; ++i) world.submit(ids_spec("a-" + std::to_string(i), "a"));
  const JobId other = world.submit(ids_spec("b", "b"));
  world.add_worker(world.worker, 2, 3);
  const auto items = world.only<protocol::Dispatch>(world.worker).items;
  ASSERT_EQ(items.size(), 3u);
  EXPECT_TRUE(items[0].job == other || items[1].job == other);
}

TEST(SchedulerOrder, TextOfAnotherTenantIsEncodedWithoutWaitingForAWholeBacklog) {
  World world;
  world.add_services();
  for (int i = 0; i < 100; ++i) {
    auto spec = job_spec("a-" + std::to_string(i), std::string(60'000, 'x'));
    spec.tenant = "a";
    world.submit(spec);
  }
  auto spec = job_spec("b");
  spec.tenant = "b";
  world.submit(spec);
  for (int round = 0; round < 3; ++round) {
    for (const auto& question : world.take<protocol::Encode>(world.tokenizer)) {
      for (const auto& item : question.items) {
        if (item.text == "once") return;
      }
      world.send(world.tokenizer, encode_bytes(question));
    }
  }
  ADD_FAILURE() << "it waited for the other tenant's backlog";
}

TEST(SchedulerAdmission, ARefusalSaysWhenToComeAgain) {
  SchedulerOptions options;
  options.open_jobs_max = 12;
  options.tenant_share = 1;
  World world(options);
  make_busy(world, 11);
  const auto outcome = world.submit_refused(ids_spec("late"));
  EXPECT_EQ(outcome.error, ErrorCode::kBusy);
  EXPECT_THAT(outcome.message, HasSubstr("maximum of 12 open jobs"));
  // A tenth of 1,144 waiting tokens at about 10 tokens/s.
  EXPECT_GT(outcome.retry_after_ms, 8'000);
  EXPECT_LT(outcome.retry_after_ms, 15'000);
}

TEST(SchedulerAdmission, TheQueueIsBoundedByTheTimeItsWorkTakes) {
  SchedulerOptions options;
  options.queue_seconds_max = 60;
  options.tenant_share = 1;
  World world(options);
  make_busy(world, 4);  // 416 tokens wait
  world.submit(ids_spec("fits", "", 100));
  const auto outcome = world.submit_refused(ids_spec("does-not", "", 100));
  EXPECT_EQ(outcome.error, ErrorCode::kBusy);
  EXPECT_THAT(outcome.message, HasSubstr("at most 60 s are queued"));
  EXPECT_GE(outcome.retry_after_ms, 50);
  EXPECT_LE(outcome.retry_after_ms, 30'000);
}

TEST(SchedulerAdmission, AJobThatCannotMeetItsTimeIsRefusedWithTheNumbers) {
  World world;
  make_busy(world, 10);  // about 100 s of work
  auto spec = ids_spec("hasty", "", 100);
  spec.queue_ms = 20'000;
  const auto outcome = world.submit_refused(spec);
  EXPECT_EQ(outcome.error, ErrorCode::kDeadlineExceeded);
  EXPECT_THAT(outcome.message, HasSubstr("its queue_ms of 20000"));
  EXPECT_GT(outcome.retry_after_ms, 50'000) << "when so much has run that the wait fits";
  EXPECT_LT(outcome.retry_after_ms, 150'000);
  spec.queue_ms = 0;
  spec.ttl_ms = 20'000;
  EXPECT_THAT(world.submit_refused(spec).message, HasSubstr("its ttl_ms of 20000"));
  spec.ttl_ms = 1;
  EXPECT_EQ(world.submit_refused(spec).retry_after_ms, 0) << "no queue is short enough for it";
  spec.ttl_ms = 80'000;
  EXPECT_EQ(world.submit_refused(spec).error, ErrorCode::kDeadlineExceeded);
  spec.tenant = "other";  // its share starts it soon
  world.submit(spec);
  spec.tenant = "";
  spec.priority = 5;
  world.submit(spec);
  spec.key = "patient";
  spec.priority = 0;
  spec.ttl_ms = 600'000;
  world.submit(spec);
}

TEST(SchedulerAdmission, MemoryOfOpenJobsIsBounded) {
  SchedulerOptions options;
  options.queue_bytes_max = 1 << 20;
  World world(options);
  world.add_tokenizer(world.tokenizer, 1);
  options.models = {"opt"};
  size_t accepted = 0;
  for (int i = 0; i < 100; ++i) {
    const auto outcome = world.submit_refused(job_spec(std::to_string(i), std::string(60'000, 'x')));
    if (outcome.job) ++accepted;
  }
  EXPECT_GT(accepted, 5u);
  EXPECT_LT(accepted, 20u);
  EXPECT_LE(world.service->bounds().bytes(), options.queue_bytes_max);
}

class FullStore final : public journal::JobStore {
 public:
  uint64_t append(journal::Record record) override { return memory_.append(std::move(record)); }
  uint64_t durable() const override { return memory_.durable(); }
  bool is_durable() const override { return true; }
  int64_t time_ms(Instant now) const override { return memory_.time_ms(now); }
  bool is_congested() const override { return congested; }
  bool is_full() const override { return full; }
  void ask(uint64_t request, journal::Question question) override { memory_.ask(request, std::move(question)); }
  std::vector<journal::Answer> poll_answers() override { return memory_.poll_answers(); }
  bool full = false, congested = false;

 private:
  journal::MemoryStore memory_;
};

TEST(SchedulerAdmission, ARequestThatForbidsEveryTokenIsRefused) {
  World world;
  world.add_services();
  auto spec = ids_spec("k");
  spec.rules.allowed_ids = {5};
  spec.rules.bad_words = {{5}};
  const auto outcome = world.submit_refused(spec);
  EXPECT_EQ(outcome.error, ErrorCode::kBadRequest);
  EXPECT_THAT(outcome.message, ::testing::HasSubstr("no token for place 1"));
}

TEST(SchedulerAdmission, AFieldThatMeansNothingIsRefusedByName) {
  World world;
  world.add_services();
  auto spec = ids_spec("k");
  spec.unknown_fields = {"temprature"};
  const auto outcome = world.submit_refused(spec);
  EXPECT_EQ(outcome.error, ErrorCode::kBadRequest);
  EXPECT_THAT(outcome.message, ::testing::HasSubstr("'temprature'"));
}

TEST(SchedulerAdmission, AnEndingProcessAcceptsWhatItsJournalKeepsForTheNext) {
  FullStore store;
  World world({}, &store);
  world.add_services();
  world.drain();
  world.submit(ids_spec("k"));
  EXPECT_TRUE(world.take<protocol::Dispatch>(world.worker).empty());
  World without_journal;
  without_journal.add_services();
  without_journal.drain();
  without_journal.send(without_journal.client, protocol::Submit{1, true, {ids_spec("k")}});
  EXPECT_EQ(without_journal.only<protocol::Refused>(without_journal.client).code, ErrorCode::kUnavailable);
}

TEST(SchedulerAdmission, AFullDiskRefusesWhatIsNewAndKnowsWhatIsOld) {
  FullStore store;
  World world({}, &store);
  world.add_services();
  const JobId known = world.submit(job_spec("known"));
  store.full = true;
  const auto outcome = world.submit_refused(job_spec("new"));
  EXPECT_EQ(outcome.error, ErrorCode::kStorageFull);
  EXPECT_GT(outcome.retry_after_ms, 0);
  EXPECT_EQ(world.submit(job_spec("known")), known);
  store.full = false;
  store.congested = true;
  EXPECT_EQ(world.submit_refused(job_spec("new")).error, ErrorCode::kBusy);
  store.congested = false;
  world.submit(job_spec("new"));
}

TEST(SchedulerPlaces, PositionAndEtaAreInAnswersEventsAndStatus) {
  World world;
  make_busy(world, 3);
  world.send(world.client, protocol::Submit{7, true, {ids_spec("last", "", 100)}});
  const auto outcome = world.only<protocol::SubmitReply>(world.client).outcomes[0];
  EXPECT_EQ(outcome.position, 3u);
  EXPECT_NEAR(static_cast<double>(outcome.eta_ms), 41'600, 8'000);
  world.send(world.client, protocol::GetJob{1, *outcome.job});
  const auto result = world.only<protocol::JobStatus>(world.client).result;
  EXPECT_EQ(result.position, 3u);
  EXPECT_EQ(result.eta_ms, outcome.eta_ms);
  size_t events = 0;
  uint32_t position = 0;
  for (int tick = 0; tick < 30; ++tick) {
    world.advance(milliseconds(100));
    world.heartbeat(world.worker, 2);
    for (const auto& message : world.take<protocol::JobEvents>(world.client)) {
      for (const auto& event : message.events) {
        if (event.job != *outcome.job) continue;
        ++events;
        position = event.position;
        EXPECT_EQ(event.state, JobState::kQueued);
        EXPECT_GT(event.eta_ms, 0);
      }
    }
  }
  EXPECT_GE(events, 1u);  // nothing changed afterwards
  EXPECT_LE(events, 3u);
  EXPECT_EQ(position, 3u);
  world.send(world.client, protocol::GetStatus{2});
  const auto status = world.only<protocol::SystemStatus>(world.client);
  ASSERT_EQ(status.models.size(), 1u);
  EXPECT_EQ(status.models[0].name, "opt");
  EXPECT_EQ(status.models[0].queued, 4);
  EXPECT_EQ(status.models[0].running, 1);
  EXPECT_NEAR(status.models[0].tokens_per_second, 10, 2);
  EXPECT_GT(status.models[0].eta_ms, 30'000);
}

TEST(SchedulerPlaces, TheExpectedWaitOfAModelIsThatOfAllItsTenants) {
  World world;
  make_busy(world, 1);
  for (int i = 0; i < 5; ++i) world.submit(ids_spec("web-" + std::to_string(i), "web", 100));
  world.send(world.client, protocol::GetStatus{2});
  EXPECT_GT(world.only<protocol::SystemStatus>(world.client).models[0].eta_ms, 50'000);
}

TEST(SchedulerPlaces, AnIdleGroupStartsAJobAtOnceAndAnUnknownSpeedIsNotGuessed) {
  World world;
  world.add_services();
  world.add_worker(world.worker, 2, 1);
  world.send(world.client, protocol::Submit{7, true, {ids_spec("a"), ids_spec("b"), ids_spec("c")}});
  const auto outcomes = world.only<protocol::SubmitReply>(world.client).outcomes;
  EXPECT_EQ(outcomes[0].eta_ms, 0);
  EXPECT_EQ(outcomes[2].position, 2u);
  EXPECT_EQ(outcomes[2].eta_ms, -1);
}

}  // namespace scheduler_queue_test
}  // namespace optserve::scheduler::testing
