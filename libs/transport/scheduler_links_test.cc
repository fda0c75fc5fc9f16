#include "transport/scheduler_links.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "base/limits.h"

namespace optserve::transport {
namespace scheduler_links_test {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr size_t kSchedulers = 3;

// Links to three schedulers that answer in their terms, unless they are down.
class SchedulerLinksTest : public ::testing::Test {
 protected:
  static SchedulerLinkOptions options() {
    SchedulerLinkOptions link;
    link.schedulers = kSchedulers;
    return link;
  }
  void pass(Duration time) {
    for (Duration done{}; done < time; done += milliseconds(100)) {
      clock.advance(milliseconds(100));
      links.on_tick(clock.now(), out);
      answer();
    }
  }
  void answer() {
    out.take_reconnects();
    for (const auto& [to, message, after] : out.take()) {
      const auto port = static_cast<size_t>(to.port);
      ASSERT_LT(port, kSchedulers);
      ++sent[port];
      if (std::holds_alternative<protocol::Goodbye>(message)) goodbyes.push_back(to.port);
      if (down[port]) continue;
      if (std::holds_alternative<protocol::Register>(message)) {
        links.on_message(to, protocol::Registered{terms[port]}, clock.now(), out);
      } else if (const auto* beat = std::get_if<protocol::Heartbeat>(&message)) {
        links.on_message(to, protocol::Pong{beat->number, terms[port]}, clock.now(), out);
      }
    }
  }

  FakeClock clock;
  Outbox out;
  std::vector<uint64_t> terms = {5, 5, 9};
  std::vector<bool> down = std::vector<bool>(kSchedulers);
  std::vector<int> sent = std::vector<int>(kSchedulers);
  std::vector<PortId> registered, lost, goodbyes;
  SchedulerLinks links{protocol::Register{},
                       options(),
                       {.on_registered = [this](PortId from, bool, Instant, Outbox&) { registered.push_back(from); },
                        .on_lost = [this](PortId from, Instant, Outbox&) { lost.push_back(from); }}};
};

TEST_F(SchedulerLinksTest, RegistersWithAll) {
  EXPECT_FALSE(links.is_registered());
  pass(seconds(1));
  std::sort(registered.begin(), registered.end());
  EXPECT_THAT(registered, ElementsAre(0, 1, 2));
  EXPECT_TRUE(links.is_registered());
  EXPECT_EQ(links.of(2).term(), 9u);
}

TEST_F(SchedulerLinksTest, OneThatIsDownFromTheStartHoldsUpNobody) {
  down[1] = true;
  pass(seconds(1));
  EXPECT_TRUE(links.is_registered());
  EXPECT_TRUE(links.of(0).is_registered());
  EXPECT_FALSE(links.of(1).is_registered());
  EXPECT_TRUE(links.of(2).is_registered());
}

TEST_F(SchedulerLinksTest, TheLossOfOneConcernsThatOne) {
  pass(seconds(2));
  registered.clear();
  down[1] = true;
  pass(seconds(8));
  EXPECT_THAT(lost, ElementsAre(1));
  EXPECT_THAT(registered, IsEmpty());
  EXPECT_TRUE(links.is_registered());
  down[1] = false;
  terms[1] = 6;
  pass(seconds(3));
  EXPECT_THAT(registered, ElementsAre(1));
  EXPECT_EQ(links.of(0).term(), 5u);
  EXPECT_EQ(links.of(1).term(), 6u);
  EXPECT_THAT(lost, ElementsAre(1));
}

TEST_F(SchedulerLinksTest, AMessageOfOneProvesNothingAboutAnother) {
  pass(seconds(2));
  down[0] = true;
  for (int i = 0; i < 80; ++i) {
    pass(milliseconds(100));
    links.on_message({1, {}}, protocol::Revoke{}, clock.now(), out);
  }
  EXPECT_THAT(lost, ElementsAre(0));
}

TEST_F(SchedulerLinksTest, HeartbeatsAreNotAllDueInOneMoment) {
  pass(seconds(2));
  std::vector<size_t> at_a_time;
  for (int i = 0; i < 10; ++i) {
    const int before = sent[0] + sent[1] + sent[2];
    pass(milliseconds(100));
    at_a_time.push_back(static_cast<size_t>(sent[0] + sent[1] + sent[2] - before));
  }
  EXPECT_LT(*std::max_element(at_a_time.begin(), at_a_time.end()), kSchedulers);
}

TEST_F(SchedulerLinksTest, LeavesEachOnItsOwnOrAllAtOnce) {
  pass(seconds(2));
  links.of(1).goodbye(out);
  answer();
  EXPECT_THAT(goodbyes, ElementsAre(1));
  EXPECT_FALSE(links.has_left());
  EXPECT_TRUE(links.is_registered());
  links.goodbye(out);
  answer();
  EXPECT_THAT(goodbyes, ElementsAre(1, 0, 2));
  EXPECT_TRUE(links.has_left());
  EXPECT_FALSE(links.is_registered());
}

using SchedulerLinksDeathTest = SchedulerLinksTest;

TEST_F(SchedulerLinksDeathTest, APortOfNobodyIsABug) {
  EXPECT_DEATH(links.of(3), "without a scheduler");
  EXPECT_DEATH(links.of(-1), "without a scheduler");
}

}  // namespace scheduler_links_test
}  // namespace optserve::transport
