#include "batches/line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "http_api/chat/chat_template.h"
#include "http_api/openai/test_models.h"
#include "protocol/validate.h"

namespace optserve::batches {
namespace line_test {

using nlohmann::json;
using ::testing::HasSubstr;

const http_api::Models& models() {
  static const http_api::Models all = http_api::test_models();
  return all;
}
LineContext context(std::string url = {}) {
  return {.models = models(), .run = "batch_1", .caller = {}, .url = std::move(url), .default_model = {}, .created = 7};
}
json request(json body = {{"model", "story"}, {"prompt", "Once"}, {"max_tokens", 3}}) {
  return {{"custom_id", "a"}, {"method", "POST"}, {"url", "/v1/completions"}, {"body", std::move(body)}};
}
Line read(const json& line, const LineContext& with = context()) { return {line.dump(), 5, with}; }
std::string message_of(const json& line, const LineContext& with = context()) {
  const Line read_line = read(line, with);
  return read_line.error() ? read_line.error()->message : "";
}
std::vector<protocol::JobResult> results_of(const Line& line) {
  std::vector<protocol::JobResult> results;
  for (const protocol::JobSpec& job : line.jobs(1)) {
    protocol::JobResult& result = results.emplace_back();
    result.job = JobId{{9}};
    result.key = job.key;
    result.state = protocol::JobState::kSucceeded;
    result.text = " upon";
    result.ids = {41};
    result.prompt_tokens = 2;
  }
  return results;
}

TEST(BatchLine, OfARequestBecomesJobsWithKeysOfTheRun) {
  const Line line = read(request({{"model", "story"}, {"prompt", {"Once", "The"}}, {"n", 2}, {"max_tokens", 3}}));
  ASSERT_FALSE(line.error()) << line.error()->message;
  const std::vector<protocol::JobSpec> jobs = line.jobs(1);
  ASSERT_EQ(jobs.size(), 4u);
  std::set<std::string> keys;
  for (const protocol::JobSpec& job : jobs) {
    EXPECT_TRUE(protocol::validate(job).ok());
    EXPECT_THAT(job.key, ::testing::StartsWith("batch_1-5"));
    EXPECT_EQ(job.on_disconnect, protocol::OnDisconnect::kContinue);
    EXPECT_EQ(job.ttl_ms, limits::kJobTtlMsMax);
    keys.insert(job.key);
  }
  EXPECT_EQ(keys.size(), 4u);
  EXPECT_EQ(read(request({{"model", "story"}, {"prompt", {"Once", "The"}}, {"n", 2}, {"max_tokens", 3}})).jobs(1), jobs)
      << "a repeated line is the same jobs";
}

TEST(BatchLine, AnotherAttemptHasOtherKeysAndTheSameSeeds) {
  const Line line = read(request());
  const protocol::JobSpec first = line.jobs(1).front();
  protocol::JobSpec second = line.jobs(2).front();
  EXPECT_NE(second.key, first.key);
  EXPECT_TRUE(protocol::validate(second).ok());
  second.key = first.key;
  EXPECT_EQ(second, first);
}

TEST(BatchLine, IsAnsweredInTheFormOfOpenAi) {
  const Line line = read(request());
  const Line::Answer answer = line.answer(results_of(line));
  EXPECT_EQ(answer.prompt_tokens, 2);
  EXPECT_EQ(answer.completion_tokens, 1);
  EXPECT_TRUE(answer.text.ends_with("}\n"));
  const json written = json::parse(answer.text);
  EXPECT_EQ(written.at("id"), "batch_1-5");
  EXPECT_EQ(written.at("custom_id"), "a");
  EXPECT_EQ(written.at("error"), nullptr);
  EXPECT_EQ(written.at("response").at("status_code"), 200);
  EXPECT_EQ(written.at("response").at("request_id"), "batch_1-5");
  EXPECT_EQ(written.at("response").at("body").at("object"), "text_completion");
  EXPECT_EQ(written.at("response").at("body").at("choices").at(0).at("text"), " upon");
  EXPECT_EQ(answered_number(answer.text, "batch_1"), 5u);
}

TEST(BatchLine, OfAJobIsAnsweredWithItsResult) {
  const Line line = read({{"prompt", "Once"}, {"model", "story"}, {"max_new_tokens", 3}, {"custom_id", "mine"}});
  ASSERT_FALSE(line.error()) << line.error()->message;
  EXPECT_EQ(line.jobs(1).front().key, "batch_1-5");
  const json written = json::parse(line.answer(results_of(line)).text);
  EXPECT_EQ(written.at("custom_id"), "mine");
  EXPECT_EQ(written.at("result").at("text"), " upon");
  const json error = json::parse(line.error_line(http_api::internal_error("broken")));
  EXPECT_EQ(error.at("error").at("message"), "broken");
  EXPECT_EQ(error.at("custom_id"), "mine");
}

TEST(BatchLine, ChatsAndResponsesAreLinesToo) {
  const http_api::ChatTemplate chat = http_api::ChatTemplate::plain();
  LineContext with = context();
  with.chat = &chat;
  json talk = request({{"model", "story"}, {"messages", {{{"role", "user"}, {"content", "Who?"}}}}, {"max_tokens", 3}});
  talk["url"] = kChatUrl;
  json response = request({{"model", "story"}, {"input", "Who?"}, {"max_output_tokens", 3}});
  response["url"] = kResponsesUrl;
  for (const auto& [line_json, object] : {std::pair{talk, "chat.completion"}, {response, "response"}}) {
    for (const std::string& url : {std::string(), line_json.at("url").get<std::string>()}) {
      with.url = url;
      const Line line = read(line_json, with);
      ASSERT_FALSE(line.error()) << line.error()->message;
      EXPECT_THAT(line.jobs(1).front().prompt, ::testing::StartsWith("User: Who?"));
      EXPECT_THAT(line.jobs(1).front().key, ::testing::StartsWith("batch_1-5"));
      EXPECT_TRUE(protocol::validate(line.jobs(1).front()).ok());
      const Line::Answer answer = line.answer(results_of(line));
      const json body = json::parse(answer.text).at("response").at("body");
      EXPECT_EQ(body.at("object"), object);
      EXPECT_EQ(answer.prompt_tokens, 2);
      EXPECT_EQ(answer.completion_tokens, 1);
    }
  }
  with.url = kCompletionsUrl;
  EXPECT_THAT(message_of(talk, with), HasSubstr("url"));
  EXPECT_THAT(message_of(talk), HasSubstr("--chat-template"));
}

TEST(BatchLine, TakesTheModelOfTheRunIfItNamesNone) {
  LineContext with = context();
  with.default_model = "plain";
  EXPECT_EQ(read(request({{"prompt", "Once"}}), with).jobs(1).front().model, "plain");
  EXPECT_EQ(read({{"prompt", "Once"}}, with).jobs(1).front().model, "plain");
  EXPECT_EQ(read(request(), with).jobs(1).front().model, "story");
}

TEST(BatchLine, ErrorsNameWhatIsWrong) {
  const auto with = [](const char* field, const json& value) {
    json line = request();
    line[field] = value;
    return line;
  };
  EXPECT_THAT(Line("{broken", 5, context()).error()->message, HasSubstr("JSON"));
  EXPECT_THAT(message_of(with("custom_id", "")), HasSubstr("custom_id"));
  EXPECT_THAT(message_of(with("custom_id", nullptr)), HasSubstr("custom_id"));
  EXPECT_THAT(message_of(with("custom_id", 7)), HasSubstr("custom_id"));
  EXPECT_THAT(message_of(with("custom_id", std::string(600, 'x'))), HasSubstr("600 bytes"));
  EXPECT_THAT(message_of(with("method", "GET")), HasSubstr("method"));
  EXPECT_THAT(message_of(with("url", "/v1/embeddings")), HasSubstr("/v1/completions"));
  EXPECT_THAT(message_of(with("body", "text")), HasSubstr("body"));
  EXPECT_THAT(message_of(with("extra", 1)), HasSubstr("extra"));
  EXPECT_THAT(message_of(request({{"model", "nobody"}, {"prompt", "x"}})), HasSubstr("nobody"));
  EXPECT_THAT(message_of(request({{"model", "story"}, {"prompt", "x"}, {"temprature", 1}})), HasSubstr("temprature"));
  EXPECT_THAT(message_of(request({{"model", "story"}, {"prompt", "x"}, {"stream", true}})), HasSubstr("stream"));
  EXPECT_THAT(message_of(request({{"model", "story"}, {"prompt", "x"}, {"background", true}})),
              HasSubstr("background"));
  EXPECT_THAT(message_of({{"prompt", "Once"}, {"max_new_tokens", -1}, {"model", "story"}}),
              HasSubstr("max_new_tokens"));
  EXPECT_THAT(message_of({{"jobs", json::array()}}), HasSubstr("one job"));
  EXPECT_THAT(message_of({{"prompt", "Once"}, {"model", "story"}}, context("/v1/completions")), HasSubstr("no field"))
      << "a run with a url takes no jobs";
  EXPECT_THAT(Line(std::string(kLineBytesMax + 1, ' '), 5, context()).error()->message, HasSubstr("too large"));
}

TEST(BatchLine, TheFormOfARequestIsCheckedWithoutItsBody) {
  const LineForm good =
      check_request_line(request({{"model", "anything"}, {"temperature", "hot"}}).dump(), kCompletionsUrl);
  EXPECT_FALSE(good.error);
  EXPECT_EQ(good.custom_id, "a");
  EXPECT_EQ(good.model, "anything");
  EXPECT_THAT(check_request_line("[]", kCompletionsUrl).error->message, HasSubstr("object"));
  EXPECT_THAT(check_request_line("{}", kCompletionsUrl).error->message, HasSubstr("custom_id"));
  EXPECT_THAT(check_request_line(request().dump(), "/v1/other").error->message, HasSubstr("/v1/other"));
  EXPECT_THAT(check_request_line(request("text").dump(), kCompletionsUrl).error->message, HasSubstr("body"));
}

TEST(BatchLine, AnErrorIsAnAnswerOfItsStatus) {
  const Line line = read(request({{"model", "story"}, {"prompt", "x"}, {"temperature", -1}}));
  ASSERT_TRUE(line.error());
  const json written = json::parse(line.error_line(*line.error()));
  EXPECT_EQ(written.at("custom_id"), "a");
  EXPECT_EQ(written.at("response").at("status_code"), 400);
  EXPECT_EQ(written.at("response").at("body").at("error").at("param"), "temperature");
  const json expired = json::parse(line.not_run_line("batch_expired", "too late"));
  EXPECT_EQ(expired.at("response"), nullptr);
  EXPECT_EQ(expired.at("error").at("code"), "batch_expired");
}

TEST(BatchLine, NumbersAreReadOnlyFromAnswersOfTheRun) {
  EXPECT_EQ(answered_number(R"({"id":"batch_1-12","custom_id":"x"})", "batch_1"), 12u);
  EXPECT_FALSE(answered_number(R"({"id":"batch_2-12","custom_id":"x"})", "batch_1"));
  EXPECT_FALSE(answered_number(R"({"id":"batch_1-","custom_id":"x"})", "batch_1"));
  EXPECT_FALSE(answered_number(R"({"id":"batch_1-12)", "batch_1"));
  EXPECT_FALSE(answered_number(R"({"id":"batch_1-99999999999999999999999")", "batch_1"));
  EXPECT_FALSE(answered_number("", "batch_1"));
}

}  // namespace line_test
}  // namespace optserve::batches
