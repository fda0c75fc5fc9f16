// Quotas and rates of tenants: what is refused, with which message, and when it is accepted again.
#include "scheduler/tenants/tenant_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace tenant_limits_test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

std::shared_ptr<const keys::TenantQuotas> quotas(const std::string& text) {
  return std::make_shared<const keys::TenantQuotas>(keys::parse_tenant_quotas(text).value());
}

SchedulerOptions with(const std::string& text) {
  SchedulerOptions options;
  options.tenant_quotas = quotas(text);
  return options;
}

class Limited : public World {
 public:
  explicit Limited(const std::string& text, journal::Recovery recovery = fresh())
      : World(with(text), nullptr, std::move(recovery)) {
    add_services();
  }
  protocol::SubmitOutcome outcome(const protocol::JobSpec& spec, const Peer& from) {
    send(from, protocol::Submit{7, false, {spec}});
    const auto replies = take<protocol::SubmitReply>(from);
    return replies.empty() ? protocol::SubmitOutcome{} : replies.front().outcomes.at(0);
  }
  protocol::SubmitOutcome outcome(const protocol::JobSpec& spec) { return outcome(spec, client); }
};

void expect_busy(const protocol::SubmitOutcome& outcome, const std::string& limit) {
  EXPECT_FALSE(outcome.job);
  EXPECT_EQ(outcome.error, ErrorCode::kBusy);
  EXPECT_THAT(outcome.message, HasSubstr(limit));
  EXPECT_GT(outcome.retry_after_ms, 0);
}

TEST(TenantQuota, OfJobsHoldsUntilOneHasEndedAndForThatTenantAlone) {
  Limited world("tenant=a jobs=2\n");
  const auto first = world.outcome(ids_spec("1", "a"));
  EXPECT_TRUE(first.job);
  EXPECT_TRUE(world.outcome(ids_spec("2", "a")).job);
  expect_busy(world.outcome(ids_spec("3", "a")), "the quota of tenant 'a' is 2 jobs");
  EXPECT_TRUE(world.outcome(ids_spec("3", "b")).job);
  EXPECT_TRUE(world.outcome(ids_spec("1", "a")).duplicate) << "what was accepted stays accepted";
  world.send(world.client, protocol::Cancel{1, *first.job});
  EXPECT_TRUE(world.outcome(ids_spec("3", "a")).job);
  EXPECT_THAT(world.metrics(), HasSubstr("optserve_jobs_busy_total{reason=\"quota\"} 1"));
  EXPECT_THAT(world.metrics(), HasSubstr("optserve_tenant_refused_total{tenant=\"a\"} 1"));
}

TEST(TenantQuota, OfTokensCountsPromptsAndWhatIsAskedFor) {
  Limited world("tenant=a tokens=24\n");
  EXPECT_TRUE(world.outcome(ids_spec("1", "a")).job);  // 4 and 8
  const auto second = world.outcome(ids_spec("2", "a"));
  EXPECT_EQ(world.service->bounds().load_of("a").tokens, 24);
  expect_busy(world.outcome(ids_spec("3", "a", 1)), "is 24 tokens in open jobs; it has 24, and this job adds 5");
  world.send(world.client, protocol::Cancel{1, *second.job});
  EXPECT_TRUE(world.outcome(ids_spec("3", "a", 1)).job);
  EXPECT_EQ(world.service->bounds().load_of("a").tokens, 17);
}

// The cost of text is estimated until its ids are known.
TEST(TenantQuota, OfTokensFollowsTheTokenizer) {
  Limited world("tenant=a tokens=1000\n");
  auto spec = job_spec("1", std::string(200, 'x'), 10);
  spec.tenant = "a";
  const JobId job = *world.outcome(spec).job;
  world.tokenize();
  EXPECT_EQ(world.service->bounds().load_of("a").tokens, 201 + 10);
  world.send(world.client, protocol::Cancel{1, job});
  EXPECT_EQ(world.service->bounds().load_of("a").tokens, 0);
}

TEST(TenantQuota, OfBytes) {
  const auto bytes = static_cast<int64_t>(QueueBounds::bytes_of(ids_spec("1", "a"), 0));
  Limited world("tenant=a bytes=" + std::to_string(2 * bytes) + "\n");
  EXPECT_TRUE(world.outcome(ids_spec("1", "a")).job);
  EXPECT_TRUE(world.outcome(ids_spec("2", "a")).job);
  expect_busy(world.outcome(ids_spec("3", "a")), "bytes in open jobs");
}

TEST(TenantQuota, OfConversions) {
  Limited world("tenant=a conversions=1\ntenant=b conversions=0\n");
  const auto convert = [](const std::string& key, const std::string& tenant) {
    protocol::JobSpec job;
    job.key = key;
    job.tenant = tenant;
    job.kind = protocol::JobKind::kConvert;
    job.convert.emplace();
    job.convert->dtype = "keep";
    job.convert->source = "/in";
    job.convert->destination = "/" + key;
    return job;
  };
  const auto first = world.outcome(convert("1", "a"));
  EXPECT_TRUE(first.job) << first.message;
  expect_busy(world.outcome(convert("2", "a")), "is 1 conversions in open jobs");
  EXPECT_EQ(world.outcome(convert("1", "b")).error, ErrorCode::kBadRequest);
  EXPECT_TRUE(world.outcome(ids_spec("1", "b")).job) << "other jobs do not count";
  world.send(world.client, protocol::Cancel{1, *first.job});
  EXPECT_TRUE(world.outcome(convert("2", "a")).job);
}

// Such a job would be deferred forever.
TEST(TenantQuota, AJobThatCanNeverFitIsRefusedForGood) {
  Limited world("tenant=a tokens=10\ntenant=b jobs=0\n");
  const auto outcome = world.outcome(ids_spec("1", "a"));
  EXPECT_EQ(outcome.error, ErrorCode::kBadRequest);
  EXPECT_THAT(outcome.message, HasSubstr("is 10 tokens in open jobs; it has 0, and this job adds 12"));
  EXPECT_EQ(world.outcome(ids_spec("1", "b")).error, ErrorCode::kBadRequest);
}

TEST(TenantQuota, OfPriorities) {
  Limited world("tenant=a priority=3\n");
  auto spec = ids_spec("1", "a");
  spec.priority = 4;
  EXPECT_EQ(world.outcome(spec).error, ErrorCode::kBadRequest);
  EXPECT_THAT(world.outcome(spec).message, HasSubstr("priority is 4, but the quota of tenant 'a' is a priority of 3"));
  spec.priority = 3;
  EXPECT_TRUE(world.outcome(spec).job);
  auto other = ids_spec("1", "b");
  other.priority = 9;
  EXPECT_TRUE(world.outcome(other).job);
}

TEST(TenantQuota, OfATenantWithoutALineIsThatOfAllOthers) {
  Limited world("tenant=* jobs=1\ntenant=a jobs=2\n");
  for (const std::string tenant : {"", "b", "c"}) {
    EXPECT_TRUE(world.outcome(ids_spec("1", tenant)).job);
    expect_busy(world.outcome(ids_spec("2", tenant)), "1 jobs");
  }
  EXPECT_TRUE(world.outcome(ids_spec("1", "a")).job);
  EXPECT_TRUE(world.outcome(ids_spec("2", "a")).job);
  EXPECT_THAT(world.metrics(), HasSubstr("optserve_tenant_refused_total{tenant=\"other\"} 3"));
  EXPECT_THAT(world.metrics(), Not(HasSubstr("tenant=\"b\"")));
}

TEST(TenantQuota, ChangesWhileJobsRun) {
  Limited world("tenant=a jobs=1\n");
  std::shared_ptr<const keys::TenantQuotas> next;
  world.service->set_quota_source([&] { return std::exchange(next, nullptr); });
  EXPECT_TRUE(world.outcome(ids_spec("1", "a")).job);
  expect_busy(world.outcome(ids_spec("2", "a")), "1 jobs");
  next = quotas("tenant=a jobs=3\n");
  world.advance(milliseconds(100));
  EXPECT_TRUE(world.outcome(ids_spec("2", "a")).job);
  EXPECT_TRUE(world.outcome(ids_spec("3", "a")).job);
  next = quotas("tenant=a jobs=2\n");
  world.advance(milliseconds(100));
  expect_busy(world.outcome(ids_spec("4", "a")), "2 jobs");
  EXPECT_EQ(world.service->jobs().size(), 3u) << "what was accepted goes on";
}

TEST(TenantQuota, CountsWhatTheJournalHeld) {
  journal::Recovery recovery;
  recovery.term = 2;
  recovery.next_order = 3;
  for (uint8_t i = 1; i <= 2; ++i) {
    journal::OpenJob& open = recovery.open.emplace_back();
    open.accepted.job.bytes.fill(i);
    open.accepted.order = i;
    open.accepted.accepted_at_ms = FakeClock().wall_ms();  // just now
    open.accepted.spec = ids_spec(std::to_string(i), "a");
  }
  Limited world("tenant=a jobs=3 tokens-per-minute=24\ntenant=b jobs=2\n", std::move(recovery));
  EXPECT_EQ(world.service->bounds().load_of("a").jobs, 2);
  EXPECT_EQ(world.service->bounds().load_of("a").tokens, 24);
  expect_busy(world.outcome(ids_spec("3", "a")), "tokens-per-minute");
  world.advance(seconds(5));
  EXPECT_TRUE(world.outcome(ids_spec("3", "a")).job);
  expect_busy(world.outcome(ids_spec("4", "a")), "3 jobs");
}

// Other jobs do not wait behind those that may not run, and those start as soon as they may.
TEST(TenantQuota, OfRunningJobsLeavesRoomForOthers) {
  Limited world("tenant=a running=2\n");
  std::vector<JobId> jobs;
  for (int i = 0; i < 5; ++i) jobs.push_back(*world.outcome(ids_spec(std::to_string(i), "a")).job);
  auto high = ids_spec("high", "a");
  high.priority = 9;
  jobs.push_back(*world.outcome(high).job);
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 2u);
  EXPECT_TRUE(world.outcome(ids_spec("1", "b")).job);
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 3u);
  world.send(world.client, protocol::Cancel{1, jobs[0]});
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 3u);
  world.send(world.client, protocol::GetJob{1, jobs[5]});
  EXPECT_EQ(world.take<protocol::JobStatus>(world.client).back().result.state, protocol::JobState::kRunning)
      << "the one of the highest priority is next";
  for (const JobId& job : jobs) world.send(world.client, protocol::Cancel{1, job});
  EXPECT_EQ(world.service->jobs().size(), 1u);
}

TEST(TenantQuota, OfRunningJobsChangesAtOnce) {
  Limited world("tenant=a running=1\n");
  std::shared_ptr<const keys::TenantQuotas> next;
  world.service->set_quota_source([&] { return std::exchange(next, nullptr); });
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(world.outcome(ids_spec(std::to_string(i), "a")).job);
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 1u);
  next = quotas("tenant=a running=3\n");
  world.advance(milliseconds(100));
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 3u);
  next = quotas("tenant=* jobs=10\n");
  world.advance(milliseconds(100));
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 5u);
}

// A worker that is lost gives back what it ran: the count does not stay.
TEST(TenantQuota, OfRunningJobsForgetsThoseOfALostWorker) {
  Limited world("tenant=a running=1\n");
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(world.outcome(ids_spec(std::to_string(i), "a")).job);
  world.undeliverable(world.worker, protocol::Ping{1}, false);
  world.advance(milliseconds(400));
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 0u);
  world.add_worker(world.worker2, 3);
  for (int second = 0; second < 4; ++second) {  // a lost attempt waits a while
    world.heartbeat(world.worker2, 3);
    world.heartbeat(world.tokenizer, 1);
    world.advance(seconds(1));
  }
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 1u);
}

// More tenants than one decision looks at.
TEST(TenantQuota, OfRunningJobsHoldsAnyNumberOfTenants) {
  Limited world("tenant=* running=1\ntenant=last running=none\n");
  world.add_worker(world.worker2, 3, 1'000);
  for (const std::string key : {"1", "2"}) {
    for (int i = 0; i < 200; ++i) EXPECT_TRUE(world.outcome(ids_spec(key, "t" + std::to_string(i))).job);
  }
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 200u);
  EXPECT_TRUE(world.outcome(ids_spec("1", "last")).job);
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 201u);
}

TEST(TenantRates, TokensCountAsTheyAreAcceptedAndComeBackWithTime) {
  Limited world("tenant=a tokens-per-minute=60\n");
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(world.outcome(ids_spec("1-" + std::to_string(i), "a")).job) << i;
  auto refused = world.outcome(ids_spec("2", "a"));
  expect_busy(refused, "tenant 'a' has used its tokens-per-minute, which are 60");
  EXPECT_EQ(refused.retry_after_ms, 1'000) << "a token a second";
  EXPECT_TRUE(world.outcome(ids_spec("1-0", "a")).duplicate);
  EXPECT_TRUE(world.outcome(ids_spec("2", "b")).job);
  world.clock.advance(milliseconds(refused.retry_after_ms - 1));
  expect_busy(world.outcome(ids_spec("2", "a")), "tokens-per-minute");
  world.clock.advance(milliseconds(1));
  EXPECT_TRUE(world.outcome(ids_spec("2", "a")).job);
  refused = world.outcome(ids_spec("3", "a"));  // 71 are used
  EXPECT_EQ(refused.retry_after_ms, 12'000);
  world.clock.advance(milliseconds(refused.retry_after_ms));
  EXPECT_TRUE(world.outcome(ids_spec("3", "a")).job);
  EXPECT_THAT(world.metrics(), HasSubstr("optserve_jobs_busy_total{reason=\"rate\"} 3"));
}

// However much it asks for, a tenant does not get more than its rate and the one minute that it may save.
TEST(TenantRates, OverAnHourATenantGetsItsRate) {
  Limited world("tenant=a tokens-per-minute=600\n");
  int64_t tokens = 0;
  for (int second = 0; second < 3'600; ++second) {
    for (int i = 0; i < 3; ++i) {
      const auto answer = world.outcome(ids_spec(std::to_string(second) + "-" + std::to_string(i), "a", 40));
      if (!answer.job) continue;
      tokens += 44;
      world.send(world.client, protocol::Cancel{1, *answer.job});
    }
    world.clock.advance(seconds(1));
    world.sent.clear();
  }
  EXPECT_LE(tokens, 600 * 61 + 44);
  EXPECT_GE(tokens, 600 * 60 - 44);
}

class MessageRates : public ::testing::Test {
 protected:
  MessageRates() {
    world.service->set_key_of([this](const World::Peer& peer) -> const keys::AllowedKey* {
      const auto found = keys_.find(peer);
      return found != keys_.end() ? &found->second : nullptr;
    });
    give(a, "client=a");
    give(gateway, "client=*");
    give(ops, "client=a operator");
  }
  void give(const World::Peer& peer, const std::string& rights) {
    keys_[peer] = keys::parse_allowed_key(keys::PublicKey{}.text() + " name=x " + rights).value();
  }
  // Of `count` equal messages.
  size_t refused(const World::Peer& from, const protocol::Message& message, int count) {
    for (int i = 0; i < count; ++i) world.send(from, message);
    size_t over = 0;
    for (const auto& answer : world.take<protocol::Refused>(from)) {
      over += answer.message.find("messages-per-minute") != std::string::npos;
    }
    world.sent.clear();
    return over;
  }

  World world{with("tenant=a messages-per-minute=60\n")};
  const World::Peer a{0, "a"}, gateway{0, "gateway"}, ops{0, "ops"};

 private:
  std::map<World::Peer, keys::AllowedKey> keys_;
};

TEST_F(MessageRates, ARefusalNamesTheLimitAndTheTimeToComeBack) {
  EXPECT_EQ(refused(a, protocol::GetStatus{1}, 60), 0u);
  world.send(a, protocol::GetStatus{5});
  const auto over = world.only<protocol::Refused>(a);
  EXPECT_EQ(over.request, 5u);
  EXPECT_EQ(over.code, ErrorCode::kBusy);
  EXPECT_EQ(over.message, "tenant 'a' has sent its messages-per-minute, which are 60");
  EXPECT_EQ(over.retry_after_ms, 1'000);
  world.clock.advance(milliseconds(over.retry_after_ms));
  EXPECT_EQ(refused(a, protocol::GetStatus{1}, 2), 1u);
  EXPECT_THAT(world.metrics(), HasSubstr("optserve_messages_over_rate_total 2"));
}

// Requests that are refused for another reason, and look-ups, count as well.
TEST_F(MessageRates, EveryRequestCountsWhateverBecomesOfIt) {
  EXPECT_EQ(refused(a, protocol::Purge{}, 20), 0u);  // not allowed
  EXPECT_EQ(refused(a, protocol::GetJob{1, JobId{}}, 20), 0u);
  protocol::Submit foreign{1, false, {ids_spec("1", "b")}};
  EXPECT_EQ(refused(a, foreign, 20), 0u);
  EXPECT_EQ(refused(a, protocol::Purge{}, 10), 10u);
  EXPECT_EQ(refused(a, protocol::GetJob{1, JobId{}}, 10), 10u);
  EXPECT_EQ(refused(a, foreign, 10), 10u);
}

TEST_F(MessageRates, SignsOfLifeAndCreditsDoNotCount) {
  EXPECT_EQ(refused(a, protocol::GetStatus{1}, 61), 1u);
  EXPECT_EQ(refused(a, protocol::Ping{1}, 100), 0u);
  EXPECT_EQ(refused(a, protocol::Credit{}, 100), 0u);
}

TEST_F(MessageRates, EachJobOfASubmitCounts) {
  world.add_services();
  protocol::Submit many{1, false, {}};
  for (int i = 0; i < 40; ++i) many.jobs.push_back(ids_spec(std::to_string(i), "a"));
  EXPECT_EQ(refused(a, many, 3), 1u) << "the second is let through as a whole";
  world.clock.advance(seconds(20));
  EXPECT_EQ(refused(a, protocol::GetStatus{1}, 1), 1u);
  world.clock.advance(seconds(1));
  EXPECT_EQ(refused(a, protocol::GetStatus{1}, 1), 0u);
}

TEST_F(MessageRates, WhoActsForSeveralTenantsIsHeldToEachOfThem) {
  protocol::ListJobs of_a;
  of_a.limit = 1;
  of_a.filter.tenant = "a";
  EXPECT_EQ(refused(gateway, protocol::GetStatus{1}, 100), 0u);
  EXPECT_EQ(refused(ops, protocol::GetStatus{1}, 100), 0u) << "an operator can always look";
  EXPECT_EQ(refused(gateway, of_a, 70), 10u);
  protocol::ListJobs of_b = of_a;
  of_b.filter.tenant = "b";
  EXPECT_EQ(refused(gateway, of_b, 70), 0u);
  EXPECT_EQ(refused(a, protocol::GetStatus{1}, 1), 1u) << "the tenant is the same";
}

// Otherwise a peer that names another tenant could use up that tenant's rate.
TEST_F(MessageRates, NobodyUsesUpTheRateOfATenantThatItsKeyIsNotFor) {
  world.add_services();
  const World::Peer two{0, "two"};
  give(two, "client=b,c");
  world.send(ops, protocol::Submit{1, false, {ids_spec("1", "a")}});
  const JobId job = *world.only<protocol::SubmitReply>(ops).outcomes.at(0).job;
  protocol::ListJobs list;
  list.limit = 1;
  list.filter.tenant = "a";
  const protocol::Submit foreign{1, false, {ids_spec("2", "a")}};
  for (const protocol::Message& message :
       {protocol::Message(list), protocol::Message(foreign), protocol::Message(protocol::GetGroup{1, "a", "g", false}),
        protocol::Message(protocol::GetJob{1, job}), protocol::Message(protocol::Attach{1, job, 0, 0})}) {
    EXPECT_EQ(refused(two, message, 100), 0u) << protocol::message_name(message);
  }
  EXPECT_EQ(refused(a, protocol::GetStatus{1}, 59), 0u);
}

// A refused look-up does not reach the journal.
TEST_F(MessageRates, WhatIsRefusedCostsNothingElse) {
  class Counted final : public journal::JobStore {
   public:
    uint64_t append(journal::Record record) override { return memory_.append(std::move(record)); }
    uint64_t durable() const override { return memory_.durable(); }
    bool is_durable() const override { return false; }
    int64_t time_ms(Instant now) const override { return memory_.time_ms(now); }
    bool is_congested() const override { return false; }
    bool is_full() const override { return false; }
    void ask(uint64_t request, journal::Question question) override {
      ++asked;
      memory_.ask(request, std::move(question));
    }
    std::vector<journal::Answer> poll_answers() override { return memory_.poll_answers(); }
    size_t asked = 0;

   private:
    journal::MemoryStore memory_;
  } store;
  World counted(with("tenant=a messages-per-minute=60\n"), &store);
  counted.service->set_key_of([key = keys::parse_allowed_key(keys::PublicKey{}.text() + " name=x client=a").value()](
                                  const World::Peer&) { return &key; });
  for (int i = 0; i < 1'000; ++i) counted.send(a, protocol::GetJob{1, JobId{}});
  EXPECT_EQ(store.asked, 60u);
}

TEST(TenantLimitsTest, RemembersABoundedNumberOfTenantsAndForgetsTheQuiet) {
  TenantLimits limits(quotas("tenant=* messages-per-minute=2\n"));
  const Instant start{seconds(1'000)};
  for (size_t i = 0; i < TenantLimits::kTenantsMax + 100; ++i) {
    EXPECT_EQ(limits.take_messages("t" + std::to_string(i), 1, start).has_value(), i > TenantLimits::kTenantsMax + 1);
  }
  EXPECT_EQ(limits.size(), TenantLimits::kTenantsMax);
  limits.sweep(start + seconds(1));
  EXPECT_EQ(limits.size(), TenantLimits::kTenantsMax);
  limits.sweep(start + seconds(31));
  EXPECT_EQ(limits.size(), 0u);
}

TEST(TenantMetrics, AreOfTheTenantsInTheFileAndOfABoundedNumber) {
  std::string text;
  for (int i = 0; i < 150; ++i) text += "tenant=t" + std::to_string(i) + " jobs=1\n";
  Limited world(text);
  world.outcome(ids_spec("1", "t0"));
  for (int i = 0; i < 300; ++i) {
    for (const std::string key : {"1", "2"}) world.outcome(ids_spec(key, "t" + std::to_string(i)));
  }
  world.advance(seconds(2));
  const std::string metrics = world.metrics();
  size_t series = 0;
  for (size_t at = metrics.find("optserve_tenant_jobs{"); at != std::string::npos;
       at = metrics.find("optserve_tenant_jobs{", at + 1)) {
    ++series;
  }
  EXPECT_EQ(series, SchedulerMetrics::kTenantsMax + 1);
  EXPECT_THAT(metrics, HasSubstr("optserve_tenant_jobs{tenant=\"t0\"} 1"));
  EXPECT_THAT(metrics, HasSubstr("optserve_tenant_tokens{tenant=\"t0\"} 12"));
}

}  // namespace
}  // namespace tenant_limits_test
}  // namespace optserve::scheduler::testing
