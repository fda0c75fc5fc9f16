#include "http_api/jobs/job_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "http_api/jobs/job_fields.h"
#include "http_api/openai/request_fixture.h"
#include "protocol/message_types.h"
#include "protocol/protocol_description.h"

namespace optserve::http_api {
namespace job_request_test {

using nlohmann::json;
using protocol::JobSpec;
using ::testing::ElementsAre;
using ::testing::SizeIs;
using ::testing::StartsWith;

class JobRequestTest : public RequestTest {
 protected:
  Parsed<JobsRequest> parse(const json& body) { return parse_jobs(body.dump(), models_, context_); }
  static json body(const json& changes = json::object()) {
    return with({{"model", "story"}, {"prompt", "the end"}}, changes);
  }
  JobSpec good(const json& body) { return value_of(parse(body), body).jobs.at(0); }
  void expect_error(const json& body, const std::string& param, const std::string& message = "", int status = 400) {
    expect_refused(parse(body), body, param, message, status);
  }

  JobContext context_;
};

TEST_F(JobRequestTest, FieldsAreThoseOfJobSpec) {
  std::set<std::string> names, expected;
  for (const FieldInfo& field : job_fields()) {
    names.insert(std::string(field.name));
    EXPECT_FALSE(field.help.empty()) << field.name;
    for (const FieldInfo& member : field.members) EXPECT_FALSE(member.help.empty()) << member.name;
  }
  protocol::visit_fields(JobSpec{}, [&](std::string_view name, const auto&) { expected.insert(std::string(name)); });
  expected.erase("kind");
  EXPECT_EQ(names, expected);
}

TEST_F(JobRequestTest, NumbersHaveTheBoundsOfTheProtocol) {
  int compared = 0;
  for (const FieldInfo& field : job_fields()) {
    const protocol::FieldNote* note = protocol::find_note("JobSpec", field.name);
    if (note == nullptr || note->bounds.of != protocol::FieldBounds::Of::kNumber) continue;
    EXPECT_EQ(field.min, note->bounds.min) << field.name;
    EXPECT_EQ(field.max, note->bounds.max) << field.name;
    ++compared;
  }
  EXPECT_GE(compared, 8);
}

TEST_F(JobRequestTest, DefaultsAreThoseOfTheQueue) {
  JobSpec expected;
  expected.model = "story";
  expected.prompt = "the end";
  EXPECT_EQ(good(body()), expected);
  json all = body();
  for (const FieldInfo& field : job_fields()) {
    const std::string name(field.name);
    if (name == "model" || name == "prompt" || name == "convert") continue;
    all[name] = json::parse(field.fallback);
  }
  EXPECT_EQ(good(all), expected) << "the defaults of the table";
}

TEST_F(JobRequestTest, EveryFieldReachesTheJob) {
  const json all{{"key", "k-1"},
                 {"tenant", "t"},
                 {"model", "story"},
                 {"prompt_ids", {2, 5}},
                 {"temperature", 0.5},
                 {"top_k", 3},
                 {"seed", -1},
                 {"profile", "fastertransformer"},
                 {"max_new_tokens", 5},
                 {"stop", {"x"}},
                 {"prompt_logprobs", true},
                 {"priority", 9},
                 {"max_attempts", 1},
                 {"ttl_ms", 1},
                 {"result_ttl_ms", 0},
                 {"group", "g"},
                 {"delay_ms", 5},
                 {"queue_ms", 6},
                 {"run_ms", 7},
                 {"on_disconnect", "cancel"},
                 {"allowed_ids", {5}},
                 {"logit_bias", {{"5", 2}}},
                 {"bad_word_ids", json::array({{5, 6}})},
                 {"stop_ids", {7}},
                 {"top_p_reset_ids", {8}},
                 {"bad_words", {"w"}},
                 {"include_stop", true}};
  const JobSpec job = good(all);
  EXPECT_EQ(job.key, "k-1");
  EXPECT_EQ(job.tenant, "t");
  EXPECT_THAT(job.prompt_ids, ElementsAre(2, 5));
  EXPECT_EQ(job.sampling.temperature, 0.5f);
  EXPECT_EQ(job.sampling.top_k, 3);
  EXPECT_EQ(job.sampling.seed, UINT64_MAX);
  EXPECT_EQ(job.sampling.profile, sampling::SamplingProfile::kFasterTransformer);
  EXPECT_EQ(job.max_new_tokens, 5);
  EXPECT_THAT(job.stop, ElementsAre("x"));
  EXPECT_TRUE(job.prompt_logprobs);
  EXPECT_EQ(job.priority, 9);
  EXPECT_EQ(job.max_attempts, 1);
  EXPECT_EQ(job.ttl_ms, 1);
  EXPECT_EQ(job.result_ttl_ms, 0);
  EXPECT_EQ(job.group, "g");
  EXPECT_EQ(job.delay_ms, 5);
  EXPECT_EQ(job.queue_ms, 6);
  EXPECT_EQ(job.run_ms, 7);
  EXPECT_EQ(job.on_disconnect, protocol::OnDisconnect::kCancel);
  EXPECT_THAT(job.rules.allowed_ids, ElementsAre(5));
  EXPECT_THAT(job.rules.logit_bias, ElementsAre(sampling::TokenBias{5, 2}));
  EXPECT_THAT(job.rules.bad_words, ElementsAre(ElementsAre(5, 6)));
  EXPECT_THAT(job.rules.stop_ids, ElementsAre(7));
  EXPECT_THAT(job.rules.top_p_reset_ids, ElementsAre(8));
  EXPECT_THAT(job.bad_words, ElementsAre("w"));
  EXPECT_TRUE(job.include_stop);
}

TEST_F(JobRequestTest, WrongTypesAndRangesAreRefusedByName) {
  for (const FieldInfo& field : job_fields()) {
    const std::string name(field.name);
    for (const json& wrong : {json(json::array({json::array({json::array()})})), json(json::object({{"q", "x"}}))}) {
      const Parsed<JobsRequest> parsed = parse(body({{name, wrong}}));
      ASSERT_FALSE(parsed.ok()) << name << wrong;
      EXPECT_THAT(parsed.error().param, StartsWith(name)) << parsed.error().message;
    }
    if (field.kind != FieldKind::kInteger) continue;
    expect_error(body({{name, field.min - 1}}), name);
    expect_error(body({{name, field.max + 1}}), name);
  }
  expect_error(body({{"profile", "vllm"}}), "profile", "default, fastertransformer or metaseq");
  expect_error(body({{"on_disconnect", "wait"}}), "on_disconnect", "continue or cancel");
  expect_error(body({{"key", "not a name"}}), "key");
  expect_error(body({{"temprature", 1}}), "temprature", "did you mean 'temperature'?");
  expect_error(body({{"prompt_ids", {2}}}), "prompt", "both");
  expect_error({{"model", "story"}, {"prompt_ids", {300}}}, "prompt_ids", "0 to 299");
  expect_error({{"model", "story"}, {"prompt_ids", std::vector<int>(60, 5)}}, "prompt_ids",
               "maximum context length is 64");
  expect_error({{"model", "other"}, {"prompt", "a"}}, "model", "does not exist", 404);
  expect_error(body({{"stop_ids", {300}}}), "stop_ids");
}

TEST_F(JobRequestTest, ManyJobsAreAllGoodOrRefusedWithTheirPlace) {
  const Parsed<JobsRequest> many = parse({{"jobs", {body(), body({{"prompt", "x"}})}}});
  ASSERT_TRUE(many.ok());
  EXPECT_TRUE(many.value().is_list);
  ASSERT_THAT(many.value().jobs, SizeIs(2));
  EXPECT_EQ(many.value().jobs[1].prompt, "x");
  expect_error({{"jobs", {body(), body({{"temperature", 3}})}}}, "jobs[1].temperature", "jobs[1].temperature is 3");
  expect_error({{"jobs", {body(), 7}}}, "jobs[1]");
  expect_error({{"jobs", json::array()}}, "jobs");
  expect_error({{"jobs", 7}}, "jobs");
  expect_error({{"jobs", {body()}}, {"model", "story"}}, "");
  expect_error({{"jobs", json(std::vector<json>(kJobsPerRequestMax + 1, body()))}}, "jobs", "at most 1000");
  context_.idempotency_key = "k";
  EXPECT_EQ(good(body()).key, "k");
  EXPECT_EQ(good(body({{"key", "own"}})).key, "own");
  expect_error({{"jobs", {body()}}}, "jobs", "its own key");
}

TEST_F(JobRequestTest, AKeysTenantCannotBeChanged) {
  context_.caller = {.tenant = "mine", .may_operate = false};
  EXPECT_EQ(good(body()).tenant, "mine");
  EXPECT_EQ(good(body({{"tenant", "mine"}})).tenant, "mine");
  expect_error(body({{"tenant", "yours"}}), "tenant", "belongs to another one", 403);
  context_.caller.may_operate = true;
  EXPECT_EQ(good(body()).tenant, "mine");
  EXPECT_EQ(good(body({{"tenant", "yours"}})).tenant, "yours");
}

TEST_F(JobRequestTest, ConversionsAreForOperators) {
  const json convert{{"convert", {{"source", "/in"}, {"destination", "/out"}, {"dtype", "keep"}}}};
  EXPECT_TRUE(parse(convert).ok());
  context_.caller = {.tenant = "mine", .may_operate = false};
  EXPECT_EQ(parse(convert).error().status, 403);
  context_.caller.may_operate = true;
  EXPECT_TRUE(parse(convert).ok());
}

TEST_F(JobRequestTest, ConversionsAreMarked) {
  const json convert{{"convert", {{"source", "/in"}, {"destination", "/out"}, {"dtype", "keep"}, {"verify", true}}}};
  const Parsed<JobsRequest> parsed = parse(convert);
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  EXPECT_TRUE(parsed.value().has_conversion);
  const JobSpec& job = parsed.value().jobs[0];
  EXPECT_EQ(job.kind, protocol::JobKind::kConvert);
  EXPECT_EQ(job.convert->source, "/in");
  EXPECT_TRUE(job.convert->verify);
  EXPECT_FALSE(parse(body()).value().has_conversion);
  expect_error({{"convert", {{"sourc", "/in"}}}}, "convert.sourc", "convert.source");
  expect_error({{"convert", {{"source", "/in"}, {"destination", "/out"}, {"dtype", "keep"}, {"shards", 65}}}},
               "convert.shards");
  expect_error({{"convert", {{"source", ""}, {"destination", "/out"}}}}, "convert");
}

}  // namespace job_request_test
}  // namespace optserve::http_api
