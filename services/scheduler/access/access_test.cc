// A scheduler whose peers have keys: what each may do with the jobs and services of others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "scheduler/scheduler_test_world.h"

namespace optserve::scheduler::testing {
namespace access_test {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

template <class Message>
Message request(uint64_t number) {
  Message message;
  message.request = number;
  return message;
}

class AccessTest : public ::testing::Test {
 protected:
  AccessTest() {
    world.service->set_key_of([this](const World::Peer& peer) -> const keys::AllowedKey* {
      const auto found = keys_.find(peer);
      return found != keys_.end() ? &found->second : nullptr;
    });
    give(world.tokenizer, "text", "tokenizer=*");
    give(world.worker, "worker", "worker=opt");
    give(a, "a", "client=a");
    give(b, "b", "client=b");
    give(ops, "ops", "client=* operator");
    world.add_services();
  }
  void give(const World::Peer& peer, const std::string& name, const std::string& rights) {
    keys_[peer] = keys::parse_allowed_key(keys::PublicKey{}.text() + " name=" + name + " " + rights).value();
  }
  JobId submit(const World::Peer& from, const std::string& key, const std::string& tenant) {
    protocol::Submit message;
    message.request = 1;
    message.jobs = {job_spec(key)};
    message.jobs[0].tenant = tenant;
    world.send(from, std::move(message));
    return world.only<protocol::SubmitReply>(from).outcomes.at(0).job.value_or(JobId{});
  }
  // Includes the tick that takes the store's answers.
  void ask(const World::Peer& from, protocol::Message message) {
    world.send(from, std::move(message));
    world.advance(milliseconds(100));
  }
  protocol::Refused refusal(const World::Peer& from, protocol::Message message) {
    ask(from, std::move(message));
    return world.only<protocol::Refused>(from);
  }
  // The answer to each kind of access to a job.
  std::vector<protocol::Refused> refusals(const World::Peer& from, const JobId& job) {
    return {refusal(from, protocol::Attach{7, job, 0, 0}), refusal(from, protocol::Cancel{7, job}),
            refusal(from, protocol::GetJob{7, job})};
  }
  protocol::Message registration(uint8_t number) {
    return protocol::Register{
        instance(number), protocol::ServiceKind::kWorker, "worker", "test", {model_info("opt")}, 8, 0, 1};
  }

  World world;
  const World::Peer a{0, "a"}, b{0, "b"}, ops{0, "ops"}, stranger{0, "stranger"}, other_worker{1, "other"};

 private:
  std::map<World::Peer, keys::AllowedKey> keys_;
};

TEST_F(AccessTest, AnothersJobIsAsUnknownAsOneThatNeverWas) {
  const JobId open = submit(a, "open", "a");
  JobId never;
  never.bytes.fill(9);
  const auto unknown = refusals(b, never);
  const auto others = refusals(b, open);
  for (size_t i = 0; i < unknown.size(); ++i) {
    EXPECT_EQ(others[i].code, ErrorCode::kNotFound);
    std::string expected = unknown[i].message;
    expected.replace(expected.find(never.hex()), never.hex().size(), open.hex());
    EXPECT_EQ(others[i].message, expected);
  }
  world.send(a, protocol::GetJob{7, open});
  EXPECT_EQ(world.only<protocol::JobStatus>(a).result.job, open);
}

TEST_F(AccessTest, AnEndedJobStaysItsTenants) {
  const JobId job = submit(a, "ends", "a");
  world.send(a, protocol::Cancel{2, job});
  EXPECT_EQ(world.only<protocol::JobStatus>(a).result.state, protocol::JobState::kCancelled);
  for (const protocol::Refused& refused : refusals(b, job)) EXPECT_EQ(refused.code, ErrorCode::kNotFound);
  world.send(ops, protocol::GetJob{7, job});
  EXPECT_EQ(world.only<protocol::JobStatus>(ops).result.job, job);
}

TEST_F(AccessTest, ACancelOfAnothersJobChangesNothing) {
  const JobId job = submit(a, "runs", "a");
  refusal(b, protocol::Cancel{7, job});
  world.send(a, protocol::GetJob{7, job});
  EXPECT_NE(world.only<protocol::JobStatus>(a).result.state, protocol::JobState::kCancelled);
  world.send(ops, protocol::Cancel{7, job});
  EXPECT_EQ(world.only<protocol::JobStatus>(ops).result.state, protocol::JobState::kCancelled);
}

TEST_F(AccessTest, TheKeyGivesTheTenantAndOthersAreRefused) {
  const JobId job = submit(a, "mine", "");
  world.send(a, protocol::GetJob{7, job});
  EXPECT_EQ(world.only<protocol::JobStatus>(a).result.tenant, "a");
  protocol::Submit foreign;
  foreign.request = 5;
  foreign.jobs = {job_spec("foreign")};
  foreign.jobs[0].tenant = "b";
  const protocol::Refused refused = refusal(a, foreign);
  EXPECT_EQ(refused.request, 5u);
  EXPECT_THAT(refused.message, HasSubstr("tenant 'b'"));
  EXPECT_EQ(world.service->jobs().size(), 1u);
}

TEST_F(AccessTest, AKeyOfOneTenantDoesNotFindTheSameIdempotencyKeyOfAnother) {
  const JobId first = submit(a, "same", "a"), second = submit(b, "same", "b");
  EXPECT_NE(first, second);
}

TEST_F(AccessTest, OperatorsAloneOperate) {
  for (const auto& from : {a, b}) {
    EXPECT_THAT(refusal(from, request<protocol::Control>(1)).message, HasSubstr("not allowed"));
    EXPECT_THAT(refusal(from, request<protocol::Purge>(1)).message, HasSubstr("not allowed"));
    EXPECT_THAT(refusal(from, request<protocol::Backup>(1)).message, HasSubstr("not allowed"));
    EXPECT_THAT(refusal(from, request<protocol::Requeue>(1)).message, HasSubstr("not allowed"));
  }
  world.send(ops, protocol::Control{1, protocol::ControlAction::kPause, protocol::ControlScope::kQueue, ""});
  EXPECT_EQ(world.only<protocol::SystemStatus>(ops).mode, protocol::QueueMode::kPaused);
}

TEST_F(AccessTest, AListHasOnesOwnJobsOnly) {
  const JobId of_a = submit(a, "1", "a");
  const JobId of_b = submit(b, "2", "b");
  ask(a, request<protocol::ListJobs>(3));
  const auto mine = world.only<protocol::JobList>(a).jobs;
  ASSERT_THAT(mine, SizeIs(1));
  EXPECT_EQ(mine[0].job, of_a);
  auto by_id = request<protocol::ListJobs>(4);
  by_id.filter.job = of_b;
  ask(a, by_id);
  EXPECT_THAT(world.only<protocol::JobList>(a).jobs, IsEmpty());
  ask(ops, request<protocol::ListJobs>(5));
  EXPECT_THAT(world.only<protocol::JobList>(ops).jobs, SizeIs(2));
}

TEST_F(AccessTest, ClientsSendNoMessagesOfServicesAndServicesNoneOfClients) {
  EXPECT_THAT(refusal(a, registration(9)).message, HasSubstr("not allowed"));
  EXPECT_THAT(refusal(a, protocol::Tokens{}).message, HasSubstr("not allowed"));
  EXPECT_THAT(refusal(world.worker, protocol::Submit{}).message, HasSubstr("not allowed"));
  EXPECT_THAT(refusal(world.worker, protocol::Encoded{}).message, HasSubstr("not allowed"));
  EXPECT_THAT(refusal(world.tokenizer, protocol::Tokens{}).message, HasSubstr("not allowed"));
}

TEST_F(AccessTest, AConnectionWithoutAKeyDoesNothing) {
  EXPECT_THAT(refusal(stranger, protocol::Ping{1}).message, HasSubstr("no key"));
  EXPECT_THAT(refusal(stranger, protocol::GetStatus{1}).message, HasSubstr("no key"));
}

TEST_F(AccessTest, AnInstanceStaysWithTheNameThatRegisteredIt) {
  give(other_worker, "thief", "worker=opt");
  EXPECT_THAT(refusal(other_worker, registration(2)).message, HasSubstr("another key"));
  EXPECT_EQ(world.service->services().find(instance(2))->peer, world.worker);
  // The same name with its next key takes its place.
  give(other_worker, "worker", "worker=opt");
  world.send(other_worker, registration(2));
  EXPECT_EQ(world.service->services().find(instance(2))->peer, other_worker);
}

TEST_F(AccessTest, AWorkerOfOneModelDoesNotBecomeOneOfAnother) {
  give(other_worker, "other", "worker=small");
  EXPECT_THAT(refusal(other_worker, registration(3)).message, HasSubstr("model 'opt'"));
  EXPECT_EQ(world.service->services().find(instance(3)), nullptr);
}

TEST_F(AccessTest, AnExpelledWorkerLosesItsJobs) {
  submit(a, "running", "a");
  world.tokenize();
  ASSERT_FALSE(world.take<protocol::Dispatch>(world.worker).empty());
  transport::Outbox out;
  world.service->on_expelled(world.worker, "its key is not allowed any longer", world.clock.now(), out);
  EXPECT_EQ(world.service->services().find(instance(2)), nullptr);
  EXPECT_EQ(world.service->jobs().count(Stage::kLeased), 0u);
  EXPECT_EQ(world.service->jobs().size(), 1u) << "the job waits for another worker";
}

TEST_F(AccessTest, AConversionGoesToAConverterOfItsFolder) {
  const World::Peer models{1, "models"}, data{1, "data"};
  give(models, "models", "converter=/models");
  give(data, "data", "converter=/data");
  for (const auto& [peer, number] : {std::pair{models, 20}, std::pair{data, 21}}) {
    world.send(peer, protocol::Register{instance(static_cast<uint8_t>(number)),
                                        protocol::ServiceKind::kConverter,
                                        "converter",
                                        "test",
                                        {},
                                        8,
                                        0,
                                        1});
    world.take<protocol::Registered>(peer);
  }
  for (int i = 0; i < 4; ++i) {
    protocol::Submit message;
    message.request = 1;
    message.jobs.emplace_back();
    protocol::JobSpec& job = message.jobs.back();
    job.key = "convert-" + std::to_string(i);
    job.kind = protocol::JobKind::kConvert;
    job.convert.emplace();
    job.convert->dtype = "keep";
    job.convert->source = i == 3 ? "/etc/in" : "/data/in" + std::to_string(i);
    job.convert->destination = "/data/out" + std::to_string(i);
    world.send(ops, std::move(message));
    const protocol::SubmitOutcome outcome = world.only<protocol::SubmitReply>(ops).outcomes.at(0);
    EXPECT_EQ(outcome.job.has_value(), i != 3) << i;
    EXPECT_THAT(outcome.message, HasSubstr(i == 3 ? "leads outside the folders" : ""));  // the key of no converter
  }
  world.flush();
  EXPECT_THAT(world.take<protocol::ConvertDispatch>(models), IsEmpty());
  EXPECT_THAT(world.take<protocol::ConvertDispatch>(data), SizeIs(3));
}

TEST(AccessOff, WithoutKeysEverybodyMayDoEverything) {
  World world;
  world.add_services();
  const World::Peer anyone{0, "anyone"};
  world.send(anyone, protocol::GetStatus{1});
  EXPECT_THAT(world.take<protocol::SystemStatus>(anyone), SizeIs(1));
}

}  // namespace
}  // namespace access_test
}  // namespace optserve::scheduler::testing
