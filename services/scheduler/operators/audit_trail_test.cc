// What operators do, and what others try, becomes records with who, what and what came of it.
#include "scheduler/operators/audit_trail.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace audit_trail_test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using audit::Outcome;
using protocol::ControlAction;
using protocol::ControlScope;

class AuditTrailTest : public ::testing::Test {
 protected:
  explicit AuditTrailTest(bool with_keys = true) {
    world.service->set_audit([this](audit::Record record) { records.push_back(std::move(record)); },
                             [] { return std::string("10.0.0.7"); });
    if (!with_keys) return;
    world.service->set_key_of([this](const World::Peer& peer) -> const keys::AllowedKey* {
      const auto found = keys_.find(peer);
      return found != keys_.end() ? &found->second : nullptr;
    });
    give(world.tokenizer, "text", "tokenizer=*");
    give(world.worker, "worker", "worker=opt");
    give(a, "a", "client=a");
    give(ops, "ops", "operator");
    give(gateway, "gateway", "client=* operator");
    world.add_services();
  }
  void give(const World::Peer& peer, const std::string& name, const std::string& rights) {
    keys_[peer] = keys::parse_allowed_key(keys::PublicKey{}.text() + " name=" + name + " " + rights).value();
  }
  JobId submit(const std::string& key, const std::string& group = "") {
    protocol::Submit message;
    message.request = 1;
    message.jobs = {ids_spec(key, "a")};
    message.jobs[0].group = group;
    message.jobs[0].max_attempts = 1;
    world.send(a, std::move(message));
    return world.only<protocol::SubmitReply>(a).outcomes.at(0).job.value_or(JobId{});
  }
  // The records of one message and of the answers that follow.
  std::vector<audit::Record> of(const World::Peer& from, protocol::Message message) {
    records.clear();
    world.send(from, std::move(message));
    world.advance(milliseconds(100));
    return std::exchange(records, {});
  }
  static protocol::Control control(ControlAction action, ControlScope scope, const std::string& name = "") {
    return {7, action, scope, name};
  }
  static protocol::GetGroup cancel_group(const std::string& tenant) { return {7, tenant, "batch", true}; }
  static protocol::Purge purge_failed() {
    protocol::Purge purge;
    purge.request = 7;
    purge.filter.state = protocol::JobState::kFailed;
    purge.filter.tenant = "a'b";
    return purge;
  }

  World world;
  std::vector<audit::Record> records;
  const World::Peer a{0, "a"}, ops{0, "ops"}, gateway{0, "gateway"}, stranger{0, "stranger"};

 private:
  std::map<World::Peer, keys::AllowedKey> keys_;
};

class AuditTrailWithoutKeys : public AuditTrailTest {
 protected:
  AuditTrailWithoutKeys() : AuditTrailTest(false) { world.add_services(); }
};

TEST_F(AuditTrailTest, ControlSaysWhoDidWhatToWhich) {
  const auto drained = of(ops, control(ControlAction::kDrain, ControlScope::kModel, "opt"));
  ASSERT_THAT(drained, SizeIs(1));
  EXPECT_EQ(drained[0].action, "drain");
  EXPECT_EQ(drained[0].object, "model opt");
  EXPECT_EQ(drained[0].outcome, Outcome::kDone);
  EXPECT_EQ(drained[0].key, "ops");
  EXPECT_EQ(drained[0].tenants, "");
  EXPECT_EQ(drained[0].peer, "10.0.0.7");
  EXPECT_EQ(of(ops, control(ControlAction::kPause, ControlScope::kQueue)).at(0).object, "queue");
  const auto resumed = of(gateway, control(ControlAction::kResume, ControlScope::kService, "worker"));
  EXPECT_EQ(resumed.at(0).action, "resume");
  EXPECT_EQ(resumed.at(0).object, "service worker");
  EXPECT_EQ(resumed.at(0).tenants, "*");
}

TEST_F(AuditTrailTest, WhatIsRefusedIsWrittenWithTheReason) {
  const auto unknown = of(ops, control(ControlAction::kPause, ControlScope::kModel, "no\nsuch"));
  ASSERT_THAT(unknown, SizeIs(1));
  EXPECT_EQ(unknown[0].outcome, Outcome::kRefused);
  EXPECT_EQ(unknown[0].object, "model no\nsuch");
  EXPECT_THAT(unknown[0].reason, HasSubstr("is not known"));
  for (const auto& message : std::initializer_list<protocol::Message>{
           control(ControlAction::kPause, ControlScope::kQueue), protocol::Requeue{7, JobId{}}, purge_failed(),
           protocol::Backup{7}, cancel_group("b")}) {
    for (const World::Peer& from : {a, stranger}) {
      const auto refused = of(from, message);
      ASSERT_THAT(refused, SizeIs(1)) << protocol::message_name(message);
      EXPECT_EQ(refused[0].outcome, Outcome::kRefused);
      EXPECT_THAT(refused[0].reason, HasSubstr("not allowed"));
      EXPECT_EQ(refused[0].key, from == a ? "a" : "");
    }
  }
  EXPECT_EQ(of(world.worker, control(ControlAction::kPause, ControlScope::kQueue)).at(0).key, "worker");
}

// A repetition of a request that is carried out has no answer of its own.
TEST_F(AuditTrailTest, RequestsWithoutAnEndAreForgottenBeyondABound) {
  for (uint64_t i = 1; i <= AuditTrail::kOpenMax + 1; ++i) {
    world.send(ops, protocol::Requeue{i, JobId{}});
    world.clock.advance(milliseconds(1));
  }
  EXPECT_THAT(records, SizeIs(AuditTrail::kOpenMax + 1));
  records.clear();
  world.advance(milliseconds(100));
  EXPECT_EQ(world.take<protocol::Refused>(ops).size(), 1u);
  EXPECT_THAT(records, IsEmpty());  // it was the oldest
}

TEST_F(AuditTrailTest, CancelsOfOtherTenantsJobsAreWrittenAndOnesOwnAreNot) {
  const JobId own = submit("own");
  EXPECT_THAT(of(a, protocol::Cancel{7, own}), IsEmpty());
  const JobId others = submit("others");
  const auto cancelled = of(ops, protocol::Cancel{7, others});
  ASSERT_THAT(cancelled, SizeIs(1));
  EXPECT_EQ(cancelled[0].action, "cancel");
  EXPECT_EQ(cancelled[0].object, "job " + others.hex() + " of tenant 'a'");
  EXPECT_EQ(cancelled[0].outcome, Outcome::kDone);
  EXPECT_EQ(cancelled[0].reason, "the job is cancelled");
  EXPECT_THAT(of(gateway, protocol::Cancel{7, submit("through the gateway")}), IsEmpty());
  const auto tried = of(stranger, protocol::Cancel{7, submit("tried")});
  ASSERT_THAT(tried, SizeIs(1));
  EXPECT_EQ(tried[0].outcome, Outcome::kRefused);
}

TEST_F(AuditTrailTest, CancelsOfGroupsSayHowManyWereMeant) {
  submit("one", "batch");
  submit("two", "batch");
  EXPECT_THAT(of(a, cancel_group("")), IsEmpty());  // its own
  submit("three", "batch");
  const auto cancelled = of(ops, cancel_group("a"));
  ASSERT_THAT(cancelled, SizeIs(2));  // it is carried out in a later part of the turn
  EXPECT_EQ(cancelled[0].outcome, Outcome::kBegun);
  EXPECT_EQ(cancelled[1].outcome, Outcome::kDone);
  EXPECT_EQ(cancelled[1].object, "group 'batch' of tenant 'a'");
  EXPECT_EQ(cancelled[1].reason, "3 jobs of the group are cancelled, 0 open");
  EXPECT_THAT(of(ops, cancel_group("")), SizeIs(2));  // of the tenant without a name, which is not the operator
}

TEST_F(AuditTrailTest, WhatTakesLongerIsWrittenAtItsBeginningToo) {
  records.clear();
  world.send(ops, purge_failed());
  ASSERT_THAT(records, SizeIs(1));
  EXPECT_EQ(records[0].outcome, Outcome::kBegun);
  EXPECT_EQ(records[0].object, "jobs state=failed tenant='a''b'");
  world.advance(milliseconds(100));
  ASSERT_THAT(records, SizeIs(2));
  EXPECT_EQ(records[1].outcome, Outcome::kDone);
  EXPECT_EQ(records[1].reason, "0 jobs purged");
  const auto requeued = of(ops, protocol::Requeue{7, JobId{}});
  ASSERT_THAT(requeued, SizeIs(2));
  EXPECT_EQ(requeued[1].outcome, Outcome::kRefused);
  EXPECT_THAT(requeued[1].reason, HasSubstr("not dead"));
  const auto copied = of(ops, protocol::Backup{7});
  ASSERT_THAT(copied, SizeIs(2));
  EXPECT_EQ(copied[1].outcome, Outcome::kRefused);  // there is no journal
}

// An operator cannot make an answer to something else look like that of what it began.
TEST_F(AuditTrailTest, ANumberThatIsUsedAgainTellsNothingOfWhatWasBegunUnderIt) {
  records.clear();
  world.send(ops, purge_failed());
  world.send(ops, protocol::GetJob{7, JobId{}});  // refused under the same number
  world.advance(milliseconds(100));
  ASSERT_THAT(records, SizeIs(1));
  EXPECT_EQ(records[0].outcome, Outcome::kBegun);
  EXPECT_THAT(of(a, protocol::GetJob{7, JobId{}}), IsEmpty());
}

TEST_F(AuditTrailTest, AFloodOfRefusedAttemptsIsCountedInsteadOfWritten) {
  const int attempts = 1'000;
  for (int i = 0; i < attempts; ++i) world.send(a, control(ControlAction::kPause, ControlScope::kQueue));
  EXPECT_THAT(records, SizeIs(static_cast<size_t>(AuditTrail::kRefusedBurst)));
  EXPECT_THAT(of(ops, control(ControlAction::kPause, ControlScope::kQueue)), SizeIs(1));  // others are not affected
  records.clear();
  world.advance(2 * AuditTrail::kRefusedInterval);
  ASSERT_THAT(records, SizeIs(1));  // what was left out is told, even if nothing more comes
  EXPECT_EQ(records[0].key, "a");
  EXPECT_EQ(records[0].left_out + 1 + static_cast<uint64_t>(AuditTrail::kRefusedBurst),
            static_cast<uint64_t>(attempts));
}

TEST_F(AuditTrailTest, AnEndThatIsAskedForIsWrittenBeforeJobsHaveEnded) {
  world.drain();
  ASSERT_THAT(records, SizeIs(1));
  EXPECT_EQ(records[0].action, "stop");
  EXPECT_EQ(records[0].outcome, Outcome::kBegun);
}

TEST_F(AuditTrailWithoutKeys, WhoIsTheAddressAndCancelsAreNobodysInParticular) {
  const auto paused = of(ops, control(ControlAction::kPause, ControlScope::kQueue));
  ASSERT_THAT(paused, SizeIs(1));
  EXPECT_EQ(paused[0].key, "");
  EXPECT_EQ(paused[0].peer, "10.0.0.7");
  EXPECT_THAT(of(ops, protocol::Cancel{7, submit("job")}), IsEmpty());
  // On the port of services it is refused without its number.
  const auto misplaced = of({1, "nobody"}, control(ControlAction::kPause, ControlScope::kQueue));
  ASSERT_THAT(misplaced, SizeIs(1));
  EXPECT_EQ(misplaced[0].outcome, Outcome::kRefused);
  EXPECT_THAT(misplaced[0].reason, HasSubstr("not registered"));
}

}  // namespace
}  // namespace audit_trail_test
}  // namespace optserve::scheduler::testing
