#include "cli/top/top_screen.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace optserve::cli {
namespace top_screen_test {

using protocol::ModelStatus;
using protocol::QueueMode;
using protocol::ServiceStatus;
using protocol::SystemStatus;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

ServiceStatus a_worker(const std::string& name, int32_t running, int32_t capacity) {
  ServiceStatus worker;
  worker.kind = "worker";
  worker.name = worker.instance = name;
  worker.models = {"opt"};
  worker.running = running;
  worker.capacity = capacity;
  return worker;
}

SystemStatus a_status() {
  SystemStatus status;
  status.term = 3;
  status.queued = 5, status.running = 4, status.finished = 100;
  ModelStatus model;
  model.name = "opt";
  model.queued = 5, model.running = 4;
  model.tokens_per_second = 250.4;
  model.eta_ms = 12'000;
  status.models.push_back(model);
  status.services.push_back(a_worker("worker-0", 4, 8));
  return status;
}

SystemLook look_at(std::vector<SystemStatus> statuses, int second) {
  SystemLook look;
  look.at = Instant(seconds(second));
  look.wall_ms = 1'767'225'600'000 + second * 1000;
  for (size_t i = 0; i < statuses.size(); ++i) {
    look.answers.push_back({"tcp://s" + std::to_string(i) + ":5555", statuses[i]});
  }
  return look;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

TEST(TopScreen, ShowsSchedulersModelsAndLoads) {
  const std::string text = joined(top_screen(look_at({a_status()}, 0), {}, {}));
  EXPECT_THAT(text, HasSubstr("2026-01-01 00:00:00 UTC  schedulers 1 of 1\n"));
  EXPECT_THAT(text, HasSubstr("queued 5  running 4  succeeded 100"));
  EXPECT_THAT(text, HasSubstr("tokens/s 250\n"));
  EXPECT_THAT(text, HasSubstr("tcp://s0:5555  term 3, durable"));
  EXPECT_THAT(text, ContainsRegex("opt +open +5 +4 +250 +12 s"));
  EXPECT_THAT(text, ContainsRegex("worker +worker-0 +opt +\\[#####\\.\\.\\.\\.\\.\\] 4/8"));
  EXPECT_THAT(text, Not(HasSubstr("/s)")));
}

TEST(TopScreen, AddsUpSchedulersAndNamesThoseThatDoNotAnswer) {
  SystemLook look = look_at({a_status(), a_status()}, 0);
  look.answers.push_back({"tcp://s2:5555", refuse(ErrorCode::kUnavailable, "no answer within 10 s")});
  const std::string text = joined(top_screen(look, {}, {}));
  EXPECT_THAT(text, HasSubstr("schedulers 2 of 3"));
  EXPECT_THAT(text, HasSubstr("queued 10  running 8  succeeded 200"));
  EXPECT_THAT(text, ContainsRegex("opt +open +10 +8 +501"));
  EXPECT_THAT(text, HasSubstr("] 8/16"));
  EXPECT_THAT(text, HasSubstr("tcp://s2:5555  no answer within 10 s\n"));
}

TEST(TopScreen, RatesAreThoseSinceTheLookBefore) {
  SystemStatus later = a_status();
  later.finished = 124;
  const SystemLook before = look_at({a_status()}, 0);
  EXPECT_THAT(joined(top_screen(look_at({later}, 2), before, {})), HasSubstr("expired 0 (12/s)"));
  later.finished = 0;  // a scheduler that has started anew
  EXPECT_THAT(joined(top_screen(look_at({later}, 2), before, {})), Not(HasSubstr("/s)")));
}

TEST(TopScreen, FitsTheScreen) {
  SystemStatus many = a_status();
  for (int i = 0; i < 50; ++i) {
    many.services.push_back(a_worker("further-" + std::to_string(i), 0, 8));
  }
  for (const size_t columns : {1U, 20U, 80U}) {
    for (const size_t rows : {1U, 5U, 24U}) {
      const auto lines = top_screen(look_at({many}, 0), {}, {columns, rows});
      EXPECT_EQ(lines.size(), rows);
      for (const std::string& line : lines) EXPECT_LE(line.size(), columns);
    }
  }
  EXPECT_THAT(joined(top_screen(look_at({many}, 0), {}, {80, 10})), HasSubstr("... 51 more lines\n"));
}

TEST(TopScreen, SaysWhatAQueueDoes) {
  SystemStatus status = a_status();
  status.durable = false, status.mode = QueueMode::kPaused, status.read_only = true;
  status.services.clear(), status.models.clear();
  const std::string text = joined(top_screen(look_at({status}, 0), {}, {}));
  EXPECT_THAT(text, HasSubstr("volatile, paused, READ-ONLY"));
  EXPECT_THAT(text, HasSubstr("no tokenizer, worker or converter is connected"));
}

}  // namespace top_screen_test
}  // namespace optserve::cli
