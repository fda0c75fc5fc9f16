#include "worker/worker_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/log.h"

namespace optserve::worker {
namespace worker_service_test {

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
  explicit WorkerServiceTest(int schedulers = 1)
      : metrics(registry, static_cast<size_t>(schedulers)),
        service(registration(), links(schedulers), engine, metrics, [this](bool takes_work) { ready = takes_work; }) {
    service.on_tick(clock.now(), out);
    for (int i = 0; i < schedulers; ++i) receive(protocol::Registered{kTerm}, i);
    out.take();
  }

  static transport::SchedulerLinkOptions links(int schedulers) {
    transport::SchedulerLinkOptions options;
    options.schedulers = schedulers;
    return options;
  }
  void receive(protocol::Message message, transport::PortId scheduler = 0) {
    service.on_message({scheduler, {}}, std::move(message), clock.now(), out);
  }
  void tick(Duration later = milliseconds(100)) {
    clock.advance(later);
    service.on_tick(clock.now(), out);
  }

  static protocol::DispatchItem item(uint64_t lease) {
    protocol::DispatchItem dispatched;
    dispatched.lease = lease;
    dispatched.model = "demo";
    dispatched.tokens = {2, 10, 11};
    dispatched.prompt_tokens = 3;
    dispatched.max_new_tokens = 8;
    return dispatched;
  }

  // What was sent since the last call, of one kind.
  template <class T>
  std::vector<T> sent() {
    std::vector<T> found;
    for (auto& [scheduler, message] : sent_with_scheduler<T>()) found.push_back(std::move(message));
    return found;
  }
  template <class T>
  std::vector<std::pair<transport::PortId, T>> sent_with_scheduler() {
    std::vector<std::pair<transport::PortId, T>> found;
    for (const auto& outgoing : out.take()) {
      if (const auto* message = std::get_if<T>(&outgoing.message)) found.emplace_back(outgoing.to.port, *message);
    }
    return found;
  }

  static batching::SequenceEvent token(batching::SequenceId id, int32_t position, TokenId value,
                                       std::optional<sampling::FinishReason> finished = {}) {
    batching::SequenceEvent item;
    item.id = id;
    item.position = position;
    item.token = value;
    item.finished = finished;
    return item;
  }

  static constexpr uint64_t kTerm = 3;
  FakeClock clock;
  FakeEngine engine;
  metrics::Registry registry;
  WorkerMetrics metrics;
  bool ready = false;  // as of the last tick
  WorkerService service;
  Outbox out;
};

TEST_F(WorkerServiceTest, SendsTheTokensOfAStepInOneMessageWithPositionsOfTheOutput) {
  receive(protocol::Dispatch{kTerm, {item(7), item(9)}});
  ASSERT_EQ(engine.added.size(), 2u);
  service.on_engine_events(
      {token(engine.added[0].id, 3, 50), token(engine.added[1].id, 4, 2, sampling::FinishReason::kEndOfText)}, out);
  const auto messages = sent<protocol::Tokens>();
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(messages[0].term, kTerm);
  EXPECT_THAT(messages[0].leases, ElementsAre(7, 9));
  EXPECT_THAT(messages[0].positions, ElementsAre(0, 1));
  EXPECT_THAT(messages[0].tokens, ElementsAre(50, 2));
  EXPECT_THAT(messages[0].finished, ElementsAre(0, static_cast<int>(sampling::FinishReason::kEndOfText)));
}

TEST_F(WorkerServiceTest, LogsTheLifeOfAJobWhoseTraceIsWanted) {
  auto traced = item(7);
  traced.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  auto unsampled = item(9);
  unsampled.traceparent = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
  ::testing::internal::CaptureStderr();
  init_logging("test", "info", LogFormat::kText);
  receive(protocol::Dispatch{kTerm, {traced, unsampled}});
  service.on_engine_events({token(engine.added[0].id, 3, 2, sampling::FinishReason::kEndOfText),
                            token(engine.added[1].id, 3, 2, sampling::FinishReason::kEndOfText)},
                           out);
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, ::testing::HasSubstr("job_started"));
  EXPECT_THAT(log, ::testing::ContainsRegex("job_done .*end_of_text trace_id=0af7651916cd43dd8448eb211c80319c"));
  EXPECT_THAT(log, ::testing::Not(::testing::HasSubstr("1af7651916cd43dd8448eb211c80319c")));
}

TEST_F(WorkerServiceTest, RulesArePassedOnAndLogprobsComeBackForThoseWhoAsk) {
  auto asks = item(9);
  asks.sampling.logprobs = 1;
  asks.rules.stop_ids = {77};
  receive(protocol::Dispatch{kTerm, {item(7), asks}});
  ASSERT_EQ(engine.added.size(), 2u);
  EXPECT_EQ(engine.added[1].rules.stop_ids, std::vector<TokenId>{77});
  auto first = token(engine.added[0].id, 3, 50),
       second = token(engine.added[1].id, 3, 77, sampling::FinishReason::kStop);
  second.logprob = -1.5f;
  second.best = {{60, -0.5f}};
  service.on_engine_events({first, second, token(engine.added[0].id, 4, 51)}, out);
  const auto messages = sent<protocol::Tokens>();
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_THAT(messages[0].finished, ElementsAre(0, static_cast<int>(sampling::FinishReason::kStop), 0));
  EXPECT_THAT(messages[0].logprobs, ElementsAre(0, -1.5f, 0));
  ASSERT_EQ(messages[0].best.size(), 3u);
  EXPECT_THAT(messages[0].best[1], ElementsAre(sampling::TokenLogprob{60, -0.5f}));
  service.on_engine_events({token(engine.added[0].id, 5, 52)}, out);
  EXPECT_TRUE(sent<protocol::Tokens>()[0].logprobs.empty());
}

TEST_F(WorkerServiceTest, HypothesesGoBeforeTheTokensOfTheBest) {
  receive(protocol::Dispatch{kTerm, {item(7)}});
  auto last = token(engine.added[0].id, 4, 51, sampling::FinishReason::kLength);
  last.hypotheses = {{{50, 51}, -1.0f, -0.5, sampling::FinishReason::kLength},
                     {{60, 2}, -2.0f, -0.75, sampling::FinishReason::kEndOfText}};
  service.on_engine_events({token(engine.added[0].id, 3, 50), last}, out);
  std::vector<protocol::Message> order;
  for (auto& outgoing : out.take()) order.push_back(std::move(outgoing.message));
  ASSERT_EQ(order.size(), 2u);
  const auto& told = std::get<protocol::Hypotheses>(order[0]);
  EXPECT_EQ(told.lease, 7u);
  ASSERT_EQ(told.hypotheses.size(), 2u);
  EXPECT_THAT(told.hypotheses[1].ids, ElementsAre(60, 2));
  EXPECT_EQ(told.hypotheses[1].score, -0.75f);
  EXPECT_EQ(told.hypotheses[1].finish_reason, sampling::FinishReason::kEndOfText);
  EXPECT_THAT(std::get<protocol::Tokens>(order[1]).tokens, ElementsAre(50, 51));
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
  auto bad_rule = item(6);
  bad_rule.rules.allowed_ids = {4096};
  receive(protocol::Dispatch{kTerm, {other_model, bad_id, no_prompt, bad_temperature, bad_rule, item(5)}});
  const auto failed = sent<protocol::LeaseFailed>();
  ASSERT_EQ(failed.size(), 5u);
  for (const auto& failure : failed) EXPECT_FALSE(failure.transient) << failure.message;
  EXPECT_EQ(failed[0].code, ErrorCode::kUnknownModel);
  EXPECT_EQ(engine.added.size(), 1u);
}

TEST_F(WorkerServiceTest, ReportsRefusalsOfTheEngineAndNonFiniteOutput) {
  receive(protocol::Dispatch{kTerm, {item(1), item(2)}});
  batching::SequenceEvent refused;
  refused.id = engine.added[0].id;
  refused.refused = refuse(ErrorCode::kPromptTooLong, "too long");
  batching::SequenceEvent broken;
  broken.id = engine.added[1].id;
  broken.finished = sampling::FinishReason::kError;
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
  service.on_engine_events({token(engine.added[0].id, 3, 2, sampling::FinishReason::kEndOfText)}, out);
  EXPECT_TRUE(service.is_drained());
}

TEST_F(WorkerServiceTest, AJobWhoseTimeIsOverIsDroppedWithoutAWord) {
  auto timed = item(7);
  timed.remaining_ms = 1'000;
  auto unlimited = item(8);
  unlimited.remaining_ms = 0;
  auto enormous = item(9);
  enormous.remaining_ms = std::numeric_limits<int64_t>::max();
  auto over = item(10);
  over.remaining_ms = -1;
  receive(protocol::Dispatch{kTerm, {timed, unlimited, enormous, over}});
  ASSERT_EQ(engine.added.size(), 3u);
  EXPECT_EQ(sent<protocol::LeaseFailed>().at(0).lease, 10u);
  tick(milliseconds(900));
  EXPECT_TRUE(engine.cancelled.empty());
  tick(milliseconds(200));
  EXPECT_THAT(engine.cancelled, ElementsAre(engine.added[0].id));
  EXPECT_TRUE(sent<protocol::LeaseFailed>().empty());
  service.on_engine_events({token(engine.added[0].id, 3, 50)}, out);
  EXPECT_TRUE(sent<protocol::Tokens>().empty());
  receive(protocol::Pong{1, kTerm});
  tick(seconds(4));
  EXPECT_EQ(engine.cancelled.size(), 1u);
}

TEST_F(WorkerServiceTest, WithoutItsSchedulerItGeneratesForNobody) {
  receive(protocol::Dispatch{kTerm, {item(7)}});
  tick(seconds(4));
  EXPECT_TRUE(engine.cancelled.empty());
  tick(seconds(1));
  EXPECT_THAT(engine.cancelled, ElementsAre(engine.added[0].id));
}

TEST_F(WorkerServiceTest, GrantsItsOnlySchedulerEverything) {
  tick(seconds(1));
  for (const auto& beat : sent<protocol::Heartbeat>()) EXPECT_EQ(beat.capacity, 4);
}

// Two schedulers of equal terms, whose lease numbers are equal too.
class TwoSchedulersTest : public WorkerServiceTest {
 protected:
  TwoSchedulersTest() : WorkerServiceTest(2) {}

  // What `scheduler` receives about its tokens.
  void expect_tokens(const std::vector<std::pair<transport::PortId, protocol::Tokens>>& messages,
                     transport::PortId scheduler, const std::vector<uint64_t>& leases) {
    size_t count = 0;
    for (const auto& [to, tokens] : messages) {
      if (to != scheduler) continue;
      ++count;
      EXPECT_EQ(tokens.leases, leases);
    }
    EXPECT_EQ(count, leases.empty() ? 0u : 1u) << "messages of one step to scheduler " << scheduler;
  }
};

TEST_F(TwoSchedulersTest, TokensOfAStepGoToTheSchedulerThatLeased) {
  receive(protocol::Dispatch{kTerm, {item(7), item(8)}}, 0);
  receive(protocol::Dispatch{kTerm, {item(7)}}, 1);
  ASSERT_EQ(engine.added.size(), 3u);
  service.on_engine_events(
      {token(engine.added[0].id, 3, 50), token(engine.added[2].id, 3, 60), token(engine.added[1].id, 3, 51)}, out);
  const auto messages = sent_with_scheduler<protocol::Tokens>();
  expect_tokens(messages, 0, {7, 8});
  expect_tokens(messages, 1, {7});
}

TEST_F(TwoSchedulersTest, FailuresAndLogprobsGoToTheSchedulerThatLeased) {
  receive(protocol::Dispatch{kTerm, {item(7)}}, 0);
  receive(protocol::Dispatch{kTerm, {item(7)}}, 1);
  batching::SequenceEvent event = token(engine.added[1].id, 3, 50, sampling::FinishReason::kError);
  event.prompt_logprobs = {-1.0f};
  event.prompt_best = {{{5, -1.0f}}};
  service.on_engine_events({event}, out);
  const auto messages = out.take();
  ASSERT_EQ(messages.size(), 2u);
  for (const auto& message : messages) EXPECT_EQ(message.to.port, 1);
  ASSERT_TRUE(std::holds_alternative<protocol::PromptLogprobs>(messages[0].message));
  EXPECT_EQ(std::get<protocol::PromptLogprobs>(messages[0].message).best, event.prompt_best);
  EXPECT_TRUE(std::holds_alternative<protocol::LeaseFailed>(messages[1].message));
  service.on_engine_events({token(engine.added[0].id, 3, 50)}, out);
  expect_tokens(sent_with_scheduler<protocol::Tokens>(), 0, {7});
}

TEST_F(TwoSchedulersTest, TheBestIdsOfAPromptAreAskedForWithItsLogprobsOnly) {
  protocol::DispatchItem scored = item(7), plain = item(8), wrong = item(9);
  scored.prompt_logprobs = true;
  scored.prompt_best = plain.prompt_best = 4;
  wrong.prompt_best = limits::kTopLogprobsMax + 1;
  receive(protocol::Dispatch{kTerm, {scored, plain, wrong}}, 0);
  ASSERT_EQ(engine.added.size(), 2u);
  EXPECT_EQ(engine.added[0].prompt_best, 4);
  EXPECT_EQ(engine.added[1].prompt_best, 0);
}

TEST_F(TwoSchedulersTest, ARevokedNumberIsThatOfItsSchedulerOnly) {
  receive(protocol::Dispatch{kTerm, {item(7)}}, 0);
  receive(protocol::Dispatch{kTerm, {item(7)}}, 1);
  receive(protocol::Revoke{kTerm, {7}}, 1);
  EXPECT_THAT(engine.cancelled, ElementsAre(engine.added[1].id));
  service.on_engine_events({token(engine.added[0].id, 3, 50), token(engine.added[1].id, 3, 60)}, out);
  const auto messages = sent_with_scheduler<protocol::Tokens>();
  expect_tokens(messages, 0, {7});
  expect_tokens(messages, 1, {});
}

TEST_F(TwoSchedulersTest, ARestartVoidsTheLeasesOfThatSchedulerOnly) {
  receive(protocol::Dispatch{kTerm, {item(7)}}, 0);
  receive(protocol::Dispatch{kTerm, {item(7)}}, 1);
  receive(protocol::Registered{kTerm + 1}, 0);
  EXPECT_THAT(engine.cancelled, ElementsAre(engine.added[0].id));
  receive(protocol::Dispatch{kTerm, {item(8)}}, 0);  // late
  EXPECT_EQ(engine.added.size(), 2u);
  receive(protocol::Dispatch{kTerm + 1, {item(7)}}, 0);
  receive(protocol::Dispatch{kTerm + 1, {item(9)}}, 1);  // of no term of its own
  receive(protocol::Revoke{kTerm, {7}}, 0);              // of the term that is over
  ASSERT_EQ(engine.added.size(), 3u);
  EXPECT_EQ(engine.cancelled.size(), 1u);
  service.on_engine_events({token(engine.added[1].id, 3, 60), token(engine.added[2].id, 3, 50)}, out);
  const auto messages = sent_with_scheduler<protocol::Tokens>();
  expect_tokens(messages, 0, {7});
  expect_tokens(messages, 1, {7});
  for (const auto& [to, tokens] : messages) EXPECT_EQ(tokens.term, to == 0 ? kTerm + 1 : kTerm);
}

TEST_F(WorkerServiceTest, TellsAfterEachTickWhetherItTakesWork) {
  EXPECT_FALSE(ready) << "the first tick came before the registration";
  tick();
  EXPECT_TRUE(ready);
  service.begin_drain(clock.now(), out);
  tick();
  EXPECT_FALSE(ready);
}

TEST_F(TwoSchedulersTest, ALostSchedulerLosesItsLeasesOnly) {
  receive(protocol::Dispatch{kTerm, {item(7)}}, 0);
  receive(protocol::Dispatch{kTerm, {item(7)}}, 1);
  for (int second = 0; second < 6; ++second) {
    tick(seconds(1));
    receive(protocol::Pong{1, kTerm}, 1);
  }
  EXPECT_THAT(engine.cancelled, ElementsAre(engine.added[0].id));
  EXPECT_TRUE(ready);
  sent<protocol::Tokens>();
  service.on_engine_events({token(engine.added[1].id, 3, 60)}, out);
  expect_tokens(sent_with_scheduler<protocol::Tokens>(), 1, {7});
}

TEST_F(TwoSchedulersTest, TokensThatOneDoesNotTakeCostTheOtherNothing) {
  receive(protocol::Dispatch{kTerm, {item(7)}}, 0);
  receive(protocol::Dispatch{kTerm, {item(7)}}, 1);
  service.on_undeliverable({1, {}}, protocol::Tokens{}, false, clock.now(), out);
  EXPECT_THAT(engine.cancelled, ElementsAre(engine.added[1].id));
  const auto hellos = sent_with_scheduler<protocol::Register>();
  ASSERT_EQ(hellos.size(), 1u);
  EXPECT_EQ(hellos[0].first, 1);
}

TEST_F(TwoSchedulersTest, ADrainTellsBothAndLeavesEachWhenItsJobsAreDone) {
  receive(protocol::Dispatch{kTerm, {item(7)}}, 0);
  service.begin_drain(clock.now(), out);
  bool told = false;
  std::vector<transport::PortId> left;
  for (const auto& [to, message, after] : out.take()) {
    if (const auto* beat = std::get_if<protocol::Heartbeat>(&message)) told |= to.port == 0 && beat->draining;
    if (std::holds_alternative<protocol::Goodbye>(message)) left.push_back(to.port);
  }
  EXPECT_TRUE(told);
  EXPECT_THAT(left, ElementsAre(1));
  EXPECT_FALSE(service.is_drained());
  service.on_engine_events({token(engine.added[0].id, 3, 2, sampling::FinishReason::kEndOfText)}, out);
  const auto goodbyes = sent_with_scheduler<protocol::Goodbye>();
  ASSERT_EQ(goodbyes.size(), 1u);
  EXPECT_EQ(goodbyes[0].first, 0);
  EXPECT_TRUE(service.is_drained());
}

TEST_F(TwoSchedulersTest, CapacityFollowsTheWaitingJobs) {
  const auto capacities = [&] {
    std::vector<int32_t> found(2);
    for (const auto& [to, beat] : sent_with_scheduler<protocol::Heartbeat>()) {
      found.at(static_cast<size_t>(to)) = beat.capacity;
    }
    return found;
  };
  const auto pass = [&](int64_t waiting0, int64_t waiting1) {
    for (int i = 0; i < 8; ++i) {
      out.take();
      receive(protocol::Pong{1, kTerm, waiting0}, 0);
      receive(protocol::Pong{1, kTerm, waiting1}, 1);
      tick(milliseconds(1'000));
    }
  };
  pass(0, 0);
  EXPECT_THAT(capacities(), ElementsAre(2, 2));
  pass(0, 90);
  EXPECT_THAT(capacities(), ElementsAre(1, 3));
  for (int i = 0; i < 8; ++i) {  // scheduler 1 falls silent
    out.take();
    receive(protocol::Pong{1, kTerm}, 0);
    tick(seconds(1));
  }
  EXPECT_EQ(capacities()[0], 4);
}

TEST_F(TwoSchedulersTest, AHeartbeatNeverGrantsNothingWhichWouldMeanAll) {
  receive(protocol::Registered{kTerm + 1}, 1);
  for (int i = 0; i < 30; ++i) {
    receive(protocol::Pong{1, kTerm}, 0);
    receive(protocol::Pong{1, kTerm + 1}, 1);
    tick();
    for (const auto& beat : sent<protocol::Heartbeat>()) EXPECT_GE(beat.capacity, 1);
  }
}

}  // namespace worker_service_test
}  // namespace optserve::worker
