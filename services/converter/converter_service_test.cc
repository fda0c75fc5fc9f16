#include "converter/converter_service.h"

#include <gtest/gtest.h>

#include <thread>

#include "converter/conversion_thread.h"

namespace optserve::converter {
namespace {

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
  ConverterServiceTest() : service_(conversions_, protocol::Register{}, {}, registry_, health_) {
    tick();
    tick(milliseconds(500));
    say(protocol::Registered{7});
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

  void say(protocol::Message message) { service_.on_message({}, std::move(message), clock_.now(), out_); }
  void tick(Duration later = milliseconds(50)) {
    clock_.advance(later);
    service_.on_tick(clock_.now(), out_);
  }
  // What was sent since the last call, of one kind.
  template <class T>
  std::vector<T> taken() {
    std::vector<T> found;
    for (auto& item : out_.take()) {
      if (auto* message = std::get_if<T>(&item.message)) found.push_back(std::move(*message));
    }
    return found;
  }

  FakeConversions conversions_;
  Registry registry_;
  Health health_;
  FakeClock clock_;
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

}  // namespace
}  // namespace optserve::converter
