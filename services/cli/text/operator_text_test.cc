#include "cli/text/operator_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/text/result_text.h"
#include "cli/text/status_text.h"
#include "cli/text/text_table.h"

namespace optserve::cli {
namespace operator_text_test {

using nlohmann::json;
using protocol::JobState;
using ::testing::HasSubstr;
using ::testing::Not;

protocol::JobSummary dead_summary() {
  protocol::JobSummary job;
  job.job = Id128::random();
  job.key = "k";
  job.tenant = "t";
  job.model = "m";
  job.state = JobState::kDead;
  job.attempts = 3;
  job.progress_done = 5;
  job.progress_total = 64;
  job.accepted_wall_ms = 1'767'225'599'123;  // 2025-12-31 23:59:59.123
  job.message = "every attempt lost its worker";
  return job;
}

TEST(TextTable, PadsToTheWidestCell) {
  EXPECT_EQ(text_table({{"A", "BB"}, {"long", "x"}, {"", "y"}}), "A     BB\nlong  x\n      y\n");
}

TEST(DurationText, IsAsExactAsNeeded) {
  EXPECT_EQ(duration_text(0), "0 ms");
  EXPECT_EQ(duration_text(999), "999 ms");
  EXPECT_EQ(duration_text(119'999), "119 s");
  EXPECT_EQ(duration_text(120'000), "2 min");
  EXPECT_EQ(duration_text(7'199'999), "119 min");
  EXPECT_EQ(duration_text(7'200'000), "2 h");
}

TEST(UtcText, IsIndependentOfTheTimeZone) { EXPECT_EQ(utc_text(1'767'225'599'123), "2025-12-31 23:59:59"); }

TEST(JobState, NamesAreReadBack) {
  for (int i = 1; i <= 7; ++i) {
    const auto state = static_cast<JobState>(i);
    EXPECT_EQ(parse_job_state(protocol::job_state_name(state)), state);
  }
  EXPECT_FALSE(parse_job_state("Dead"));
  EXPECT_FALSE(parse_job_state(""));
}

TEST(JobListing, TellsTheSameAsTextAndAsJson) {
  JobListing listing;
  listing.jobs.push_back(dead_summary());
  listing.more = true;
  const std::string id = listing.jobs[0].job.hex();
  EXPECT_THAT(listing_table(listing), HasSubstr(id + "  dead   m      t       -      3         5/64      2025-12-31"));
  EXPECT_THAT(reasons_table(listing), HasSubstr("every attempt lost its worker"));
  const json root = json::parse(listing_json(listing));
  EXPECT_TRUE(root["more"].get<bool>());
  const json expected{{"job", id},
                      {"key", "k"},
                      {"tenant", "t"},
                      {"group", ""},
                      {"model", "m"},
                      {"kind", "generate"},
                      {"state", "dead"},
                      {"attempts", 3},
                      {"progress_done", 5},
                      {"progress_total", 64},
                      {"accepted_ms", 1'767'225'599'123},
                      {"message", "every attempt lost its worker"}};
  EXPECT_EQ(root["jobs"], json::array({expected}));
  EXPECT_EQ(json::parse(listing_json({})), (json{{"jobs", json::array()}, {"more", false}}));
}

TEST(JobText, ShowsLossesAndWaiting) {
  protocol::JobResult result;
  result.job = Id128::random();
  result.state = JobState::kQueued;
  result.attempts = 2;
  result.position = 4;
  result.eta_ms = 2'500;
  result.losses = {"worker a: silent for 5 s", "worker b: connection lost"};
  const std::string text = job_text(result, dead_summary());
  EXPECT_THAT(text, HasSubstr("waiting:        4 jobs before it, starts in about 2 s\n"));
  EXPECT_THAT(text, HasSubstr("lost:           worker a: silent for 5 s\nlost:           worker b"));
  EXPECT_THAT(text, HasSubstr("accepted:       2025-12-31 23:59:59 UTC\n"));
  const json root = json::parse(job_json(result, dead_summary()));
  EXPECT_EQ(root["losses"].size(), 2u);
  EXPECT_EQ(root["position"], 4);
  EXPECT_EQ(root["eta_ms"], 2'500);
  EXPECT_EQ(root["model"], "m");
  EXPECT_TRUE(json::parse(job_json(result, std::nullopt))["model"].is_null());
}

TEST(GroupText, CountsEveryState) {
  const protocol::GroupStatus group{0, 1, 2, 3, 4, 5, 6};
  EXPECT_EQ(group_text("g", group), "group g: 1 open, 2 succeeded, 3 failed, 4 cancelled, 5 expired, 6 dead\n");
  EXPECT_EQ(json::parse(group_json("t", "g", group)), (json{{"tenant", "t"},
                                                            {"group", "g"},
                                                            {"open", 1},
                                                            {"succeeded", 2},
                                                            {"failed", 3},
                                                            {"cancelled", 4},
                                                            {"expired", 5},
                                                            {"dead", 6}}));
}

client::Answers<protocol::SystemStatus> two_schedulers() {
  protocol::SystemStatus status;
  status.term = 7;
  status.mode = protocol::QueueMode::kPaused;
  status.read_only = true;
  protocol::ModelStatus& model = status.models.emplace_back();
  model.name = "opt-125m";
  model.mode = protocol::QueueMode::kDraining;
  model.queued = 12;
  model.running = 8;
  model.tokens_per_second = 1234.4;
  model.eta_ms = 5'000;
  protocol::ServiceStatus& service = status.services.emplace_back();
  service.kind = "worker";
  service.name = "w0";
  service.models = {"opt-125m"};
  service.paused = true;
  service.capacity = 80;
  service.slots = 64;
  return {{"tcp://a:1", status}, {"tcp://b:1", refuse(ErrorCode::kUnavailable, "cannot be reached")}};
}

TEST(StatusText, ShowsModesModelsAndWhoDoesNotAnswer) {
  const std::string text = status_table(two_schedulers());
  EXPECT_THAT(text, HasSubstr("scheduler tcp://a:1, term 7, durable, paused: accepts jobs, starts none\n"));
  EXPECT_THAT(text, HasSubstr("READ-ONLY"));
  EXPECT_THAT(text, HasSubstr("opt-125m  draining  12      8        1234      5 s\n"));
  EXPECT_THAT(text, HasSubstr("paused\n"));
  EXPECT_THAT(text, HasSubstr("64 (+16 ahead)"));
  EXPECT_THAT(text, HasSubstr("\nscheduler tcp://b:1: cannot be reached\n"));
  auto quiet = two_schedulers();
  quiet.pop_back();
  quiet[0].answer.value().read_only = false;
  EXPECT_THAT(status_table(quiet), Not(HasSubstr("READ-ONLY")));
}

TEST(StatusText, JsonHasOneObjectForEachScheduler) {
  const json schedulers = json::parse(status_json(two_schedulers())).at("schedulers");
  ASSERT_EQ(schedulers.size(), 2u);
  EXPECT_EQ(schedulers[0]["mode"], "paused");
  EXPECT_EQ(schedulers[0]["read_only"], true);
  EXPECT_EQ(schedulers[0]["models"][0]["mode"], "draining");
  EXPECT_EQ(schedulers[0]["services"][0]["paused"], true);
  EXPECT_EQ(schedulers[0]["services"][0]["slots"], 64);
  EXPECT_EQ(schedulers[1],
            (json{{"endpoint", "tcp://b:1"}, {"error", "unavailable"}, {"message", "cannot be reached"}}));
}

TEST(WaitingText, SaysWhyNothingIsPrintedYet) {
  protocol::JobEvent event;
  event.position = 2;
  event.eta_ms = 1'500;
  EXPECT_EQ(waiting_text(event), "queued: 2 jobs before it, starts in about 1 s");
  event.position = 1;
  event.eta_ms = -1;
  EXPECT_EQ(waiting_text(event), "queued: 1 job before it");
  event.position = 0;
  EXPECT_EQ(waiting_text(event), "queued: next to start");
  event.state = JobState::kRunning;
  EXPECT_EQ(waiting_text(event), "");
}

TEST(WaitingText, NeverComesAfterText) {
  protocol::JobEvent event;
  event.text_offset = 3;
  EXPECT_EQ(waiting_text(event), "");
}

}  // namespace operator_text_test
}  // namespace optserve::cli
