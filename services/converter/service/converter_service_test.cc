#include "converter/service/converter_service.h"

#include <gtest/gtest.h>

#include <thread>

#include "converter/service/conversion_thread.h"

namespace optserve::converter {
namespace converter_service_test {

using protocol::ConvertDispatch;
using protocol::ConvertProgress;
using protocol::LeaseFailed;

// A conversion that ends when the test says so.
class FakeConversions final : public ConversionPort {
 public:
  void start(const protocol::ConvertSpec& spec) override {
    ASSERT_TRUE(is_idle());
    running = true;
    cancelled = false;
    started.push_back(spec.source);
    state_ = {0, 1000};
  }
  void cancel() override { cancelled = true; }
  bool is_idle() const override { return !running && !end_; }
  ConversionState state() const override { return state_; }
  std::optional<ConversionEnd> take_end() override { return std::exchange(end_, std::nullopt); }

  void advance(int64_t bytes) { state_.bytes_done = bytes; }
  void end(ConversionEnd how) {
    running = false;
    end_ = std::move(how);
  }

  bool running = false;
  bool cancelled = false;
  std::vector<std::string> started;

 private:
  ConversionState state_;
  std::optional<ConversionEnd> end_;
};

class ConverterServiceTest : public ::testing::Test {
 protected:
  explicit ConverterServiceTest(int schedulers = 1)
      : service_(conversions_, protocol::Register{}, links(schedulers), registry_, health_) {
    tick();
    tick(milliseconds(500));
    for (int i = 0; i < schedulers; ++i) say(protocol::Registered{7}, i);
  }

  static transport::SchedulerLinkOptions links(int schedulers) {
    transport::SchedulerLinkOptions options;
    options.schedulers = schedulers;
    return options;
  }

  static ConvertDispatch dispatch(uint64_t lease, uint8_t job, uint64_t term = 7) {
    ConvertDispatch message;
    message.term = term;
    message.lease = lease;
    message.job.bytes[0] = job;
    message.spec = {"source" + std::to_string(job), "destination", "keep", 0};
    return message;
  }
  static ConversionEnd success() { return {std::nullopt, false, "written"}; }
  static ConversionEnd refusal() { return {refuse(ErrorCode::kUnsupportedFormat, "no checkpoint"), false, {}}; }

  void say(protocol::Message message, transport::PortId scheduler = 0) {
    service_.on_message({scheduler, {}}, std::move(message), clock_.now(), out_);
  }
  void tick(Duration later = milliseconds(50)) {
    clock_.advance(later);
    service_.on_tick(clock_.now(), out_);
  }
  // What was sent since the last call, of one kind.
  template <class T>
  std::vector<T> taken() {
    std::vector<T> found;
    for (auto& [scheduler, message] : taken_with_scheduler<T>()) found.push_back(std::move(message));
    return found;
  }
  template <class T>
  std::vector<std::pair<transport::PortId, T>> taken_with_scheduler() {
    std::vector<std::pair<transport::PortId, T>> found;
    for (auto& item : out_.take()) {
      if (auto* message = std::get_if<T>(&item.message)) found.emplace_back(item.to.port, std::move(*message));
    }
    return found;
  }

  FakeConversions conversions_;
  metrics::Registry registry_;
  FakeClock clock_;
  metrics::Health health_{clock_};
  transport::Outbox out_;
  ConverterService service_;
};

TEST_F(ConverterServiceTest, RegistersAsAConverterOfOneConversionAtATime) {
  const auto hellos = taken<protocol::Register>();
  ASSERT_FALSE(hellos.empty());
  EXPECT_EQ(hellos[0].kind, protocol::ServiceKind::kConverter);
  EXPECT_EQ(hellos[0].max_sequences, 1);
  EXPECT_TRUE(hellos[0].models.empty());
  EXPECT_TRUE(health_.ready);
}

TEST_F(ConverterServiceTest, ReportsProgressAtMostFiveTimesASecondAndTheEndOnce) {
  say(dispatch(1, 1));
  taken<ConvertProgress>();
  size_t reports = 0;
  for (int i = 0; i < 40; ++i) {  // two seconds
    conversions_.advance(25 * i);
    tick();
    for (const ConvertProgress& progress : taken<ConvertProgress>()) {
      ++reports;
      EXPECT_EQ(progress.lease, 1u);
      EXPECT_EQ(progress.bytes_total, 1000);
      EXPECT_FALSE(progress.finished);
      EXPECT_LT(progress.bytes_done, 1000);
    }
  }
  EXPECT_GE(reports, 8u);
  EXPECT_LE(reports, 10u);
  conversions_.advance(1000);
  conversions_.end(success());
  tick();
  const auto last = taken<ConvertProgress>();
  ASSERT_EQ(last.size(), 1u);
  EXPECT_TRUE(last[0].finished);
  EXPECT_EQ(last[0].bytes_done, 1000);
  EXPECT_EQ(last[0].message, "written");
  tick(seconds(1));
  EXPECT_TRUE(taken<ConvertProgress>().empty());
}

TEST_F(ConverterServiceTest, ARefusedConversionFailsItsLeaseForGood) {
  say(dispatch(1, 1));
  conversions_.end(refusal());
  tick();
  const auto failed = taken<LeaseFailed>();
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].code, ErrorCode::kUnsupportedFormat);
  EXPECT_EQ(failed[0].message, "no checkpoint");
  EXPECT_FALSE(failed[0].transient);
  say(dispatch(2, 2));
  EXPECT_EQ(conversions_.started.size(), 2u);
}

TEST_F(ConverterServiceTest, AFailureOfTheEnvironmentMayBeTriedAgain) {
  say(dispatch(1, 1));
  conversions_.end({refuse(ErrorCode::kUnavailable, "disk full"), true, {}});
  tick();
  EXPECT_TRUE(taken<LeaseFailed>().at(0).transient);
}

TEST_F(ConverterServiceTest, RevokeCancelsAndTheNextJobWaitsForTheEnd) {
  say(dispatch(1, 1));
  say(protocol::Revoke{7, {99}});
  EXPECT_FALSE(conversions_.cancelled);
  say(protocol::Revoke{6, {1}});  // of a scheduler that is gone
  EXPECT_FALSE(conversions_.cancelled);
  say(protocol::Revoke{7, {1}});
  EXPECT_TRUE(conversions_.cancelled);
  say(dispatch(2, 2));
  tick();
  EXPECT_EQ(conversions_.started.size(), 1u);
  conversions_.end({refuse(ErrorCode::kCancelled, "cancelled"), false, {}});
  tick();
  EXPECT_EQ(conversions_.started, (std::vector<std::string>{"source1", "source2"}));
  EXPECT_TRUE(taken<LeaseFailed>().empty());
}

// The conversion continues from its finished shards.
TEST_F(ConverterServiceTest, ARevokedConversionStartsAgainWhenItIsLeasedAgain) {
  say(dispatch(1, 1));
  say(protocol::Revoke{7, {1}});
  conversions_.end({refuse(ErrorCode::kCancelled, "cancelled"), false, {}});
  tick();
  say(dispatch(2, 1));
  EXPECT_EQ(conversions_.started, (std::vector<std::string>{"source1", "source1"}));
  conversions_.end(success());
  tick();
  const auto last = taken<ConvertProgress>();
  ASSERT_EQ(last.size(), 1u);
  EXPECT_EQ(last[0].lease, 2u);
  EXPECT_TRUE(last[0].finished);
}

TEST_F(ConverterServiceTest, ASecondJobIsTurnedAwayWhileOneRuns) {
  say(dispatch(1, 1));
  say(dispatch(2, 2));
  const auto failed = taken<LeaseFailed>();
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].lease, 2u);
  EXPECT_EQ(failed[0].code, ErrorCode::kBusy);
  EXPECT_TRUE(failed[0].transient);
  say(dispatch(1, 1));  // sent twice
  EXPECT_TRUE(taken<LeaseFailed>().empty());
  EXPECT_EQ(conversions_.started.size(), 1u);
}

TEST_F(ConverterServiceTest, ARestartedSchedulerFindsTheConversionStillRunning) {
  say(dispatch(1, 1));
  say(protocol::Registered{8});
  tick(seconds(1));
  EXPECT_TRUE(taken<ConvertProgress>().empty());  // its lease is void
  say(dispatch(5, 1, 7));                         // of the old scheduler
  say(dispatch(3, 1, 8));
  EXPECT_EQ(conversions_.started.size(), 1u);
  conversions_.end(success());
  tick();
  const auto last = taken<ConvertProgress>();
  ASSERT_EQ(last.size(), 1u);
  EXPECT_EQ(last[0].term, 8u);
  EXPECT_EQ(last[0].lease, 3u);
  EXPECT_TRUE(last[0].finished);
}

TEST_F(ConverterServiceTest, AnEndThatTheSchedulerDidNotHearIsReportedAgain) {
  say(dispatch(1, 1));
  conversions_.end(success());
  tick();
  EXPECT_EQ(taken<ConvertProgress>().size(), 1u);
  say(protocol::Registered{8});
  say(dispatch(3, 1, 8));
  const auto again = taken<ConvertProgress>();
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].lease, 3u);
  EXPECT_TRUE(again[0].finished);
  EXPECT_EQ(conversions_.started.size(), 1u);
}

TEST_F(ConverterServiceTest, AJobThatIsNotLeasedAgainMakesRoomForAnother) {
  say(dispatch(1, 1));
  say(protocol::Registered{8});
  say(dispatch(2, 2, 8));
  EXPECT_TRUE(conversions_.cancelled);
  conversions_.end({refuse(ErrorCode::kCancelled, "cancelled"), false, {}});
  tick();
  EXPECT_EQ(conversions_.started, (std::vector<std::string>{"source1", "source2"}));
}

TEST_F(ConverterServiceTest, DrainsAfterTheRunningConversion) {
  say(dispatch(1, 1));
  service_.begin_drain(clock_.now(), out_);
  EXPECT_FALSE(service_.is_drained());
  EXPECT_FALSE(health_.ready);
  say(dispatch(2, 2));
  EXPECT_EQ(taken<LeaseFailed>().at(0).code, ErrorCode::kUnavailable);
  conversions_.end(success());
  tick();
  EXPECT_TRUE(service_.is_drained());
  EXPECT_EQ(taken<protocol::Goodbye>().size(), 1u);
}

class TwoSchedulersTest : public ConverterServiceTest {
 protected:
  TwoSchedulersTest() : ConverterServiceTest(2) { out_.take(); }

  // Whether each scheduler reads in its last heartbeat that the converter wants work.
  std::vector<bool> wanted() {
    out_.take();
    for (int i = 0; i < 22; ++i) {
      for (const transport::PortId live : live_) say(protocol::Pong{1, terms_[static_cast<size_t>(live)]}, live);
      tick();
    }
    std::vector<bool> wants(2);
    for (const auto& [to, beat] : taken_with_scheduler<protocol::Heartbeat>()) {
      wants.at(static_cast<size_t>(to)) = !beat.draining;
    }
    return wants;
  }
  void pass(Duration time) {
    for (Duration done{}; done < time; done += milliseconds(1'100)) wanted();
  }

  std::vector<transport::PortId> live_ = {0, 1};
  std::vector<uint64_t> terms_ = {7, 7};
};

TEST_F(TwoSchedulersTest, TheOtherOneIsToldThatThePlaceIsTakenUntilItIsFree) {
  EXPECT_EQ(wanted(), (std::vector<bool>{true, true}));
  say(dispatch(1, 1), 0);
  const auto beats = taken_with_scheduler<protocol::Heartbeat>();  // at once
  ASSERT_EQ(beats.size(), 2u);
  EXPECT_FALSE(beats[0].second.draining);
  EXPECT_TRUE(beats[1].second.draining);
  EXPECT_EQ(beats[0].second.running, 1);
  EXPECT_EQ(beats[1].second.running, 0);
  EXPECT_EQ(wanted(), (std::vector<bool>{true, false}));
  conversions_.end(success());
  tick();
  const auto sent = out_.take();
  for (const auto& [to, message, after] : sent) {
    if (std::holds_alternative<ConvertProgress>(message)) {
      EXPECT_EQ(to.port, 0);
    }
  }
  EXPECT_EQ(wanted(), (std::vector<bool>{true, true}));
  say(dispatch(1, 2), 1);  // the same number of the other scheduler
  conversions_.end(success());
  tick();
  const auto last = taken_with_scheduler<ConvertProgress>();
  ASSERT_EQ(last.size(), 1u);
  EXPECT_EQ(last[0].first, 1);
}

TEST_F(TwoSchedulersTest, OneThatAsksAllTheSameReadsTheHeartbeatBeforeTheRefusal) {
  say(dispatch(1, 1), 0);
  out_.take();
  say(dispatch(1, 2), 1);
  const auto sent = out_.take();
  ASSERT_GE(sent.size(), 2u);
  EXPECT_EQ(sent.back().to.port, 1);
  EXPECT_TRUE(std::get<LeaseFailed>(sent.back().message).transient);
  EXPECT_TRUE(std::get<protocol::Heartbeat>(sent[sent.size() - 2].message).draining);
  EXPECT_EQ(conversions_.started.size(), 1u);
}

TEST_F(TwoSchedulersTest, ARevokedNumberIsThatOfItsSchedulerOnly) {
  say(dispatch(1, 1), 0);
  say(protocol::Revoke{7, {1}}, 1);
  EXPECT_FALSE(conversions_.cancelled);
  say(protocol::Revoke{7, {1}}, 0);
  EXPECT_TRUE(conversions_.cancelled);
  EXPECT_EQ(wanted(), (std::vector<bool>{true, true}));
}

TEST_F(TwoSchedulersTest, ARestartOfTheOtherChangesNothing) {
  say(dispatch(1, 1), 0);
  terms_[1] = 8;
  say(protocol::Registered{8}, 1);
  tick(seconds(1));
  EXPECT_EQ(taken_with_scheduler<ConvertProgress>().size(), 1u);
  EXPECT_EQ(wanted(), (std::vector<bool>{true, false}));
}

TEST_F(TwoSchedulersTest, AConversionIsKeptForALostSchedulerForAWhile) {
  say(dispatch(1, 1), 0);
  live_ = {1};
  pass(seconds(20));
  EXPECT_EQ(wanted()[1], false);
  EXPECT_FALSE(conversions_.cancelled);
  live_ = {0, 1};
  terms_[0] = 8;
  say(protocol::Registered{8}, 0);
  say(dispatch(1, 1, 8), 0);  // it goes on
  pass(seconds(60));
  EXPECT_EQ(wanted(), (std::vector<bool>{true, false}));
  EXPECT_EQ(conversions_.started.size(), 1u);
}

TEST_F(TwoSchedulersTest, ALostSchedulerDoesNotHoldThePlaceForEver) {
  say(dispatch(1, 1), 0);
  live_ = {1};
  pass(seconds(45));
  EXPECT_EQ(wanted()[1], true);
  EXPECT_FALSE(conversions_.cancelled);
  say(dispatch(1, 2), 1);
  EXPECT_TRUE(conversions_.cancelled);
  conversions_.end({refuse(ErrorCode::kCancelled, "cancelled"), false, {}});
  tick();
  EXPECT_EQ(conversions_.started, (std::vector<std::string>{"source1", "source2"}));
}

TEST_F(TwoSchedulersTest, ADrainLeavesBothWhenTheConversionIsDone) {
  say(dispatch(1, 1), 0);
  out_.take();
  service_.begin_drain(clock_.now(), out_);
  for (const auto& [to, beat] : taken_with_scheduler<protocol::Heartbeat>()) EXPECT_TRUE(beat.draining) << to;
  conversions_.end(success());
  tick();
  EXPECT_EQ(taken<protocol::Goodbye>().size(), 2u);
  EXPECT_TRUE(service_.is_drained());
}

// The real thread: progress, cancellation, errors of the environment.
TEST(ConversionThread, RunsReportsAndCancels) {
  ConversionThread thread([](const protocol::ConvertSpec& spec, const auto& progress) -> Result<std::string> {
    if (spec.source == "throws") throw Error("disk full");
    while (spec.source == "endless" && progress(1, 10)) std::this_thread::yield();
    if (spec.source == "endless") return refuse(ErrorCode::kCancelled, "cancelled");
    progress(10, 10);
    return "wrote " + spec.destination;
  });
  const auto end_of = [&](const std::string& source, bool cancel) {
    thread.start({source, "there", "keep", 0});
    if (cancel) thread.cancel();
    std::optional<ConversionEnd> end;
    while (!(end = thread.take_end())) std::this_thread::yield();
    EXPECT_TRUE(thread.is_idle());
    return *end;
  };
  EXPECT_EQ(end_of("fine", false).summary, "wrote there");
  EXPECT_EQ(thread.state().bytes_done, 10);
  EXPECT_EQ(end_of("endless", true).refused->code, ErrorCode::kCancelled);
  const ConversionEnd failed = end_of("throws", false);
  EXPECT_TRUE(failed.transient);
  EXPECT_EQ(failed.refused->message, "disk full");
  thread.start({"endless", "there", "keep", 0});  // the destructor cancels it
}

}  // namespace converter_service_test
}  // namespace optserve::converter
