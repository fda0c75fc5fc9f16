#include "worker/worker_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace optserve::worker {
namespace {

using ::testing::ElementsAre;
using transport::Outbox;

class FakeEngine final : public EnginePort {
 public:
  void add(batching::SequenceRequest request) override { added.push_back(std::move(request)); }
  void cancel(batching::SequenceId id) override { cancelled.push_back(id); }
  uint64_t steps() const override { return 0; }

  std::vector<batching::SequenceRequest> added;
  std::vector<batching::SequenceId> cancelled;
};

protocol::Register registration() {
  protocol::Register hello;
  hello.instance = Id128::random();
  hello.kind = protocol::ServiceKind::kWorker;
  hello.models = {{"demo", "v", "m", 1024, 4096}};
  hello.max_sequences = 4;
  return hello;
}

class WorkerServiceTest : public ::testing::Test {
 protected:
  WorkerServiceTest() {
    service.on_tick(clock.now(), out);
    receive(protocol::Registered{kTerm});
    out.take();
  }

  void receive(protocol::Message message) { service.on_message({}, std::move(message), clock.now(), out); }

  static protocol::DispatchItem item(uint64_t lease) {
    protocol::DispatchItem dispatched;
    dispatched.lease = lease;
    dispatched.model = "demo";
    dispatched.tokens = {2, 10, 11};
    dispatched.prompt_tokens = 3;
    dispatched.max_new_tokens = 8;
    return dispatched;
  }

  template <class T>
  std::vector<T> sent() {
    std::vector<T> found;
    for (const auto& outgoing : out.take()) {
      if (const auto* message = std::get_if<T>(&outgoing.message)) found.push_back(*message);
    }
    return found;
  }

  static EngineEvent token(batching::SequenceId id, int32_t position, TokenId value,
                           std::optional<batching::FinishReason> finished = {}) {
    EngineEvent item;
    item.event.id = id;
    item.event.position = position;
    item.event.token = value;
    item.event.finished = finished;
    return item;
  }

  static constexpr uint64_t kTerm = 3;
  FakeClock clock;
  FakeEngine engine;
  Registry registry;
  WorkerMetrics metrics{registry};
  WorkerService service{registration(), {}, engine, metrics};
  Outbox out;
};

TEST_F(WorkerServiceTest, SendsTheTokensOfAStepInOneMessageWithPositionsOfTheOutput) {
  receive(protocol::Dispatch{kTerm, {item(7), item(9)}});
  ASSERT_EQ(engine.added.size(), 2u);
  service.on_engine_events(
      {token(engine.added[0].id, 3, 50), token(engine.added[1].id, 4, 2, batching::FinishReason::kEndOfText)}, out);
  const auto messages = sent<protocol::Tokens>();
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(messages[0].term, kTerm);
  EXPECT_THAT(messages[0].leases, ElementsAre(7, 9));
  EXPECT_THAT(messages[0].positions, ElementsAre(0, 1));
  EXPECT_THAT(messages[0].tokens, ElementsAre(50, 2));
  EXPECT_THAT(messages[0].finished, ElementsAre(0, static_cast<int>(protocol::FinishReason::kEndOfText)));
}

TEST_F(WorkerServiceTest, AForcedPrefixIsPassedOnAndPositionsContinueAfterIt) {
  auto resumed = item(7);
  resumed.tokens = {2, 10, 11, 60, 61};
  receive(protocol::Dispatch{kTerm, {resumed}});
  EXPECT_EQ(engine.added[0].tokens.size(), 5u);
  service.on_engine_events({token(engine.added[0].id, 5, 62)}, out);
  EXPECT_THAT(sent<protocol::Tokens>()[0].positions, ElementsAre(2));
}

TEST_F(WorkerServiceTest, RefusesWhatItCannotRunAndGoesOn) {
  auto other_model = item(1);
  other_model.model = "opt-1.3b";
  auto bad_id = item(2);
  bad_id.tokens = {2, 4096, 5};
  auto no_prompt = item(3);
  no_prompt.prompt_tokens = 0;
  auto bad_temperature = item(4);
  bad_temperature.sampling.temperature = 9;
  receive(protocol::Dispatch{kTerm, {other_model, bad_id, no_prompt, bad_temperature, item(5)}});
  const auto failed = sent<protocol::LeaseFailed>();
  ASSERT_EQ(failed.size(), 4u);
  for (const auto& failure : failed) EXPECT_FALSE(failure.transient) << failure.message;
  EXPECT_EQ(failed[0].code, ErrorCode::kUnknownModel);
  EXPECT_EQ(engine.added.size(), 1u);
}

TEST_F(WorkerServiceTest, ReportsRefusalsOfTheEngineAndNonFiniteOutput) {
  receive(protocol::Dispatch{kTerm, {item(1), item(2)}});
  EngineEvent refused;
  refused.event.id = engine.added[0].id;
  refused.refused = refuse(ErrorCode::kPromptTooLong, "too long");
  EngineEvent broken;
  broken.event.id = engine.added[1].id;
  broken.event.finished = batching::FinishReason::kNonFinite;
  service.on_engine_events({refused, broken}, out);
  const auto failed = sent<protocol::LeaseFailed>();
  ASSERT_EQ(failed.size(), 2u);
  EXPECT_EQ(failed[0].code, ErrorCode::kPromptTooLong);
  EXPECT_FALSE(failed[0].transient);
  EXPECT_TRUE(failed[1].transient);
}

TEST_F(WorkerServiceTest, RevokedLeasesAreCancelledAndTheirLateTokensDropped) {
  receive(protocol::Dispatch{kTerm, {item(7)}});
  receive(protocol::Revoke{kTerm, {7, 8}});
  EXPECT_THAT(engine.cancelled, ElementsAre(engine.added[0].id));
  service.on_engine_events({token(engine.added[0].id, 3, 50)}, out);
  EXPECT_TRUE(sent<protocol::Tokens>().empty());
}

TEST_F(WorkerServiceTest, ANewTermVoidsEveryLease) {
  receive(protocol::Dispatch{kTerm, {item(7)}});
  receive(protocol::Registered{kTerm + 1});
  EXPECT_THAT(engine.cancelled, ElementsAre(engine.added[0].id));
  receive(protocol::Dispatch{kTerm, {item(8)}});  // of the old scheduler, late
  EXPECT_EQ(engine.added.size(), 1u);
  receive(protocol::Dispatch{kTerm + 1, {item(7)}});
  EXPECT_EQ(engine.added.size(), 2u);
}

TEST_F(WorkerServiceTest, LostTokensMakeItRegisterAnew) {
  receive(protocol::Dispatch{kTerm, {item(7)}});
  service.on_undeliverable({}, protocol::Tokens{}, false, clock.now(), out);
  EXPECT_EQ(engine.cancelled.size(), 1u);
  EXPECT_EQ(sent<protocol::Register>().size(), 1u);
}

TEST_F(WorkerServiceTest, DrainsWhenItsJobsHaveEnded) {
  receive(protocol::Dispatch{kTerm, {item(7)}});
  service.begin_drain(clock.now(), out);
  EXPECT_FALSE(service.is_drained());
  receive(protocol::Dispatch{kTerm, {item(8)}});
  EXPECT_TRUE(sent<protocol::LeaseFailed>().at(0).transient);
  service.on_engine_events({token(engine.added[0].id, 3, 2, batching::FinishReason::kEndOfText)}, out);
  EXPECT_TRUE(service.is_drained());
}

}  // namespace
}  // namespace optserve::worker
