#include "gateway/service/scheduler_watch.h"

#include <gmock/gmock.h>

namespace optserve::gateway {
namespace scheduler_watch_test {

using News = SchedulerWatch::News;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr const char* kFirst = "tcp://10.0.0.1:5555";
constexpr const char* kSecond = "tcp://10.0.0.2:5555";

Instant at(int second) { return Instant{} + seconds(second); }

client::Answers<protocol::SystemStatus> answers(bool first, bool second) {
  client::Answers<protocol::SystemStatus> both;
  for (const auto& [endpoint, is_there] : {std::pair{kFirst, first}, std::pair{kSecond, second}}) {
    if (is_there) {
      both.push_back({endpoint, protocol::SystemStatus{}});
    } else {
      both.push_back({endpoint, Refusal{ErrorCode::kUnavailable, "connection refused"}});
    }
  }
  return both;
}

TEST(SchedulerWatch, ReportsASilentSchedulerWithTheReasonAndItsReturn) {
  SchedulerWatch watch;
  EXPECT_THAT(watch.update(answers(true, true), at(0)), IsEmpty());
  EXPECT_THAT(watch.update(answers(true, false), at(1)), IsEmpty());
  EXPECT_THAT(watch.update(answers(true, false), at(2)), IsEmpty());
  EXPECT_THAT(watch.update(answers(true, false), at(3)),
              ElementsAre(News{kSecond, false, seconds(3), "connection refused"}));
  EXPECT_THAT(watch.update(answers(true, true), at(5)), ElementsAre(News{kSecond, true, seconds(5), ""}));
  EXPECT_THAT(watch.update(answers(true, true), at(6)), IsEmpty());
}

TEST(SchedulerWatch, ReportsOneThatNeverAnswersOnceAMinute) {
  SchedulerWatch watch;
  std::vector<News> news;
  for (int second = 0; second < 130; ++second) {
    for (const News& one : watch.update(answers(true, false), at(second))) news.push_back(one);
  }
  EXPECT_THAT(news, ElementsAre(News{kSecond, false, seconds(3), "connection refused"},
                                News{kSecond, false, seconds(63), "connection refused"},
                                News{kSecond, false, seconds(123), "connection refused"}));
}

TEST(SchedulerWatch, IsSilentAboutAnAnswerThatComesLate) {
  SchedulerWatch watch;
  for (int second = 0; second < 20; ++second) {
    EXPECT_THAT(watch.update(answers(true, second % 3 == 0), at(second)), IsEmpty());
  }
}

}  // namespace scheduler_watch_test
}  // namespace optserve::gateway
