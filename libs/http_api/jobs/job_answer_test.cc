#include "http_api/jobs/job_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "http_api/jobs/job_events.h"
#include "http_api/jobs/job_list.h"

namespace optserve::http_api {
namespace job_answer_test {

using nlohmann::json;
using protocol::JobList;
using protocol::JobResult;
using protocol::JobState;
using protocol::SubmitOutcome;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::StartsWith;

SubmitOutcome accepted(uint8_t number) {
  SubmitOutcome outcome;
  outcome.job = JobId{{number}};
  outcome.position = 3;
  outcome.eta_ms = 900;
  return outcome;
}
SubmitOutcome busy() {
  SubmitOutcome outcome;
  outcome.error = ErrorCode::kBusy;
  outcome.message = "the queue is full";
  outcome.retry_after_ms = 2'500;
  return outcome;
}

TEST(JobAnswers, OneJobIsAcceptedWithItsPlace) {
  JobsRequest request{.jobs = {{}}};
  const HttpAnswer answer = submit_answer(request, {accepted(1)});
  EXPECT_EQ(answer.status, 202);
  EXPECT_THAT(answer.headers, ElementsAre(Pair("Location", "/v1/jobs/" + JobId{{1}}.hex())));
  EXPECT_EQ(json::parse(answer.body), json::parse(R"({"job": ")" + JobId{{1}}.hex() + R"(", "state": "queued",
      "position": 3, "eta_ms": 900, "duplicate": false})"));
}

TEST(JobAnswers, RefusedJobsHaveTheirErrorInTheirPlace) {
  JobsRequest request{.jobs = {{}, {}}, .is_list = true};
  const HttpAnswer some = submit_answer(request, {busy(), accepted(2)});
  EXPECT_EQ(some.status, 202);
  const json jobs = json::parse(some.body)["jobs"];
  EXPECT_EQ(jobs[0]["error"]["code"], "server_overloaded");
  EXPECT_EQ(jobs[0]["retry_after_ms"], 2'500);
  EXPECT_EQ(jobs[1]["job"], JobId{{2}}.hex());
  const HttpAnswer none = submit_answer(request, {busy(), busy()});
  EXPECT_EQ(none.status, 429);
  EXPECT_THAT(none.headers, ::testing::Contains(Pair("Retry-After", "3")));
}

TEST(JobAnswers, ResultsComeOnceTheJobHasEnded) {
  JobResult result;
  result.job = JobId{{1}};
  result.state = JobState::kQueued;
  result.position = 4;
  result.eta_ms = 50;
  result.text = "so far";
  const HttpAnswer waiting = result_answer(result);
  EXPECT_EQ(waiting.status, 202);
  EXPECT_EQ(waiting.body, state_body(result));
  EXPECT_EQ(json::parse(waiting.body)["position"], 4);
  EXPECT_EQ(json::parse(waiting.body)["eta_ms"], 50);
  EXPECT_FALSE(json::parse(waiting.body).contains("text"));
  for (const JobState state : {JobState::kSucceeded, JobState::kFailed, JobState::kDead}) {
    result.state = state;
    EXPECT_EQ(result_answer(result).status, 200) << "the answer is the result, whatever it says";
    EXPECT_EQ(json::parse(result_answer(result).body)["text"], "so far");
  }
}

TEST(JobEventFrames, ResumeAtTheByte) {
  JobEventStream stream(5);
  EXPECT_EQ(stream.on_text("\u00e9\n"), "id: 8\nevent: text\ndata: {\"text\":\"\u00e9\\n\"}\n\n");
  EXPECT_EQ(stream.on_text(""), "");
  protocol::JobEvent event;
  event.state = JobState::kQueued;
  event.position = 2;
  EXPECT_EQ(stream.on_progress(event),
            "id: 8\nevent: progress\ndata: {\"state\":\"queued\",\"position\":2,\"eta_ms\":-1,\"tokens\":0,"
            "\"progress_done\":0,\"progress_total\":0}\n\n");
  EXPECT_EQ(stream.on_restarted(), "id: 0\nevent: restarted\ndata: {}\n\n");
  EXPECT_THAT(stream.on_text("ab"), StartsWith("id: 2\n"));
  JobResult result;
  result.text = "ab";
  EXPECT_THAT(stream.on_finished(result), StartsWith("id: 2\nevent: finished\ndata: {\"job\":"));
  EXPECT_TRUE(stream.is_over());
  EXPECT_EQ(stream.on_text("late") + stream.on_progress(event) + stream.on_restarted() + stream.on_finished(result),
            "");
  JobEventStream lost(0);
  EXPECT_THAT(lost.on_lost(refuse(ErrorCode::kNotFound, "no such job")), HasSubstr("event: error\ndata: {\"error\":"));
  EXPECT_TRUE(lost.is_over());
}

TEST(JobEventFrames, LastEventIdIsANumber) {
  EXPECT_EQ(parse_last_event_id("").value(), 0u);
  EXPECT_EQ(parse_last_event_id("17").value(), 17u);
  EXPECT_EQ(parse_last_event_id("18446744073709551615").value(), UINT64_MAX);
  for (const char* bad : {"-1", "1.5", "x", " 1", "1 ", "18446744073709551616", "0x10"}) {
    EXPECT_EQ(parse_last_event_id(bad).error().param, "Last-Event-ID") << bad;
  }
}

TEST(JobQueries, FieldsBecomeTheFilter) {
  const JobQuery query =
      parse_job_query({{"state", "dead"}, {"model", "m"}, {"group", "g"}, {"tenant", "t"}, {"limit", "7"}}, "").value();
  EXPECT_EQ(query.filter.state, JobState::kDead);
  EXPECT_EQ(query.filter.model, "m");
  EXPECT_EQ(query.filter.group, "g");
  EXPECT_EQ(query.filter.tenant, "t");
  EXPECT_EQ(query.limit, 7u);
  EXPECT_EQ(parse_job_query({}, "mine").value().filter.tenant, "mine");
  EXPECT_EQ(parse_job_query({{"tenant", "yours"}}, "mine").error().status, 403);
  const QueryFields bad = {{"state", "lost"}, {"limit", "0"}, {"limit", "1001"}, {"limit", "x"},
                           {"after", "zz"},   {"after", ""},  {"after", "00"},   {"model", "a b"}};
  for (const auto& field : bad) {
    const Parsed<JobQuery> parsed = parse_job_query({field}, "");
    ASSERT_FALSE(parsed.ok()) << field.first << "=" << field.second;
    EXPECT_EQ(parsed.error().param, field.first);
  }
  EXPECT_EQ(parse_job_query({{"stat", "dead"}}, "").error().code, "unknown_parameter");
}

// Random jobs on three schedulers: pages of any size give each job once, and each scheduler's in its order.
TEST(JobQueries, PagesGiveEachJobOnce) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 50; ++round) {
    std::map<std::string, std::vector<protocol::JobSummary>> schedulers;
    size_t total = 0;
    for (const char* endpoint : {"tcp://a:1", "tcp://b:2", "tcp://c:3"}) {
      std::vector<protocol::JobSummary>& jobs = schedulers[endpoint];
      for (uint64_t order = 1 + random() % 3; jobs.size() < random() % 12; order += 1 + random() % 3) {
        protocol::JobSummary& job = jobs.emplace_back();
        job.order = order;
        job.key = endpoint + std::string("/") + std::to_string(order);
        job.accepted_wall_ms = static_cast<int64_t>(random() % 100);  // a wall clock that jumps
      }
      total += jobs.size();
    }
    QueryFields fields{{"limit", std::to_string(1 + random() % 6)}};
    std::map<std::string, uint64_t> last;
    std::set<std::string> seen;
    for (int page = 0; page < 50; ++page) {
      const JobQuery query = parse_job_query(fields, "").value();
      client::Answers<JobList> answers;
      for (const auto& [endpoint, jobs] : schedulers) {
        const auto at = query.after.find(endpoint);
        if (!query.after.empty() && at == query.after.end()) continue;  // as the client library does
        if (random() % 5 == 0) {
          answers.push_back({endpoint, refuse(ErrorCode::kUnavailable, "away")});
          continue;
        }
        JobList list;
        for (const auto& job : jobs) {
          if (at != query.after.end() && job.order <= at->second) continue;
          list.more = list.jobs.size() == query.limit;
          if (list.more) break;
          list.jobs.push_back(job);
        }
        answers.push_back({endpoint, list});
      }
      const json body = json::parse(list_body(query, answers));
      ASSERT_LE(body["jobs"].size(), query.limit);
      for (const json& job : body["jobs"]) EXPECT_TRUE(seen.insert(job["key"]).second) << job["key"];
      if (body["next"].is_null()) break;
      fields.resize(1);
      fields.emplace_back("after", body["next"]);
    }
    EXPECT_EQ(seen.size(), total);
  }
}

TEST(QueueControls, NameTheWholeQueueAModelOrAService) {
  const QueueControl all = parse_queue_control(R"({"action":"pause"})").value();
  EXPECT_EQ(all.action, protocol::ControlAction::kPause);
  EXPECT_EQ(all.scope, protocol::ControlScope::kQueue);
  const QueueControl model = parse_queue_control(R"({"action":"drain","model":"m"})").value();
  EXPECT_EQ(model.scope, protocol::ControlScope::kModel);
  EXPECT_EQ(model.name, "m");
  const QueueControl service = parse_queue_control(R"({"action":"resume","service":"s"})").value();
  EXPECT_EQ(service.action, protocol::ControlAction::kResume);
  EXPECT_EQ(service.scope, protocol::ControlScope::kService);
  EXPECT_EQ(parse_queue_control(R"({"action":"stop"})").error().param, "action");
  EXPECT_EQ(parse_queue_control(R"({"action":null})").error().param, "action");
  EXPECT_EQ(parse_queue_control("").error().param, "action");
  EXPECT_EQ(parse_queue_control(R"({"action":null})").error().param, "action");
  EXPECT_EQ(parse_queue_control(R"({"action":"pause","model":"m","service":"s"})").error().param, "service");
}

}  // namespace job_answer_test
}  // namespace optserve::http_api
