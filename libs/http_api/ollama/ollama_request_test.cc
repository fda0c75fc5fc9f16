#include "http_api/ollama/ollama_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "http_api/chat/chat_template.h"
#include "http_api/openai/completion_stream.h"
#include "http_api/openai/request_fixture.h"

namespace optserve::http_api {
namespace ollama_request_test {

using nlohmann::json;
using protocol::JobResult;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class OllamaRequestTest : public RequestTest {
 protected:
  Parsed<CompletionRequest> generate(const json& changes) {
    const json body = with({{"model", "story"}, {"prompt", "the end"}, {"options", {{"num_predict", 8}}}}, changes);
    return parse_ollama_generate(body.dump(), models_, context_);
  }
  Parsed<CompletionRequest> chat(const json& changes) {
    const json body = with({{"model", "story:latest"},
                            {"messages", {{{"role", "user"}, {"content", "on"}}}},
                            {"options", {{"num_predict", 8}}}},
                           changes);
    return parse_ollama_chat(body.dump(), models_, context_);
  }
  static CompletionRequest good(Parsed<CompletionRequest> parsed) { return value_of(std::move(parsed), "the body"); }
  JobResult result_of(const CompletionRequest& request, const std::string& text) {
    std::vector<TokenId> ids;
    for (const char c : text) ids.push_back(byte_id(static_cast<uint8_t>(c)));
    return test_result(request, request.jobs()[0], ids, story());
  }

  ChatTemplate template_ = ChatTemplate::plain();
  RequestContext context_ = test_context();
};

TEST_F(OllamaRequestTest, OptionsAreMappedAndStreamsAreTheDefault) {
  const CompletionRequest plain = good(generate({}));
  EXPECT_TRUE(plain.stream);
  EXPECT_EQ(plain.job.sampling.temperature, 0.8f);
  EXPECT_EQ(plain.job.sampling.top_k, 40);
  EXPECT_EQ(plain.job.sampling.top_p, 0.9f);
  const CompletionRequest request = good(generate({{"stream", false},
                                                   {"options",
                                                    {{"num_predict", 5},
                                                     {"temperature", 0},
                                                     {"top_k", 3},
                                                     {"top_p", 0.5},
                                                     {"min_p", 0.25},
                                                     {"repeat_penalty", 1.5},
                                                     {"seed", 9},
                                                     {"num_ctx", 4096},
                                                     {"stop", {"x", "y"}}}}}));
  EXPECT_FALSE(request.stream);
  EXPECT_EQ(request.job.max_new_tokens, 5);
  EXPECT_EQ(request.job.sampling.temperature, 0);
  EXPECT_EQ(request.job.sampling.top_k, 3);
  EXPECT_EQ(request.job.sampling.top_p, 0.5f);
  EXPECT_EQ(request.job.sampling.min_p, 0.25f);
  EXPECT_EQ(request.job.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(request.seed, 9u);
  EXPECT_THAT(request.job.stop, ElementsAre("x", "y"));
}

TEST_F(OllamaRequestTest, WithoutALimitAsMuchAsFits) {
  for (const json& options : {json::object(), json{{"num_predict", -1}}, json{{"num_predict", -2}}}) {
    const CompletionRequest request = good(generate({{"options", options}, {"prompt", "z"}}));
    EXPECT_EQ(request.job.max_new_tokens, kTestContext - 2) << options;
  }
}

TEST_F(OllamaRequestTest, ARawPromptIsTheTextAndAnotherIsWhatAUserSays) {
  EXPECT_EQ(good(generate({})).prompts[0].text, "the end") << "there is no template";
  context_.chat = &template_;
  EXPECT_EQ(good(generate({})).prompts[0].text, "User: the end\nAssistant:");
  EXPECT_EQ(good(generate({{"raw", true}})).prompts[0].text, "the end");
  EXPECT_EQ(good(generate({{"system", "Be kind"}})).prompts[0].text, "Be kind\n\nUser: the end\nAssistant:");
  const CompletionRequest request = good(chat({}));
  EXPECT_EQ(request.prompts[0].text, "User: on\nAssistant:");
  EXPECT_EQ(request.model.name, "story") << "with or without a tag";
  EXPECT_THAT(request.job.stop, ElementsAre("\nUser:"));
}

TEST_F(OllamaRequestTest, ErrorsAreTextsThatNameTheField) {
  const auto error = [](const Parsed<CompletionRequest>& parsed) {
    return parsed.ok() ? "none" : json::parse(ollama_error_body(parsed.error()))["error"].get<std::string>();
  };
  EXPECT_THAT(error(chat({})), AllOf(HasSubstr("messages: "), HasSubstr("--chat-template plain")));
  EXPECT_THAT(error(generate({{"system", "x"}})), HasSubstr("--chat-template plain"));
  EXPECT_THAT(error(generate({{"system", "x"}, {"raw", true}})), HasSubstr("system"));
  EXPECT_THAT(error(generate({{"options", {{"temperature", 3}}}})), HasSubstr("options.temperature"));
  EXPECT_THAT(error(generate({{"options", {{"temprature", 1}}}})), HasSubstr("did you mean 'options.temperature'?"));
  EXPECT_THAT(error(generate({{"options", {{"mirostat", 2}}}})), HasSubstr("options.mirostat is not supported"));
  EXPECT_THAT(error(generate({{"options", {{"stop", std::string(65, 'x')}}}})), HasSubstr("options.stop"));
  EXPECT_THAT(error(generate({{"format", "json"}})), HasSubstr("format is not supported"));
  EXPECT_THAT(error(generate({{"images", {"x"}}})), HasSubstr("images is not supported"));
  EXPECT_THAT(error(generate({{"model", "other"}})), HasSubstr("does not exist"));
  EXPECT_EQ(error(generate({{"format", ""}, {"images", json::array()}, {"keep_alive", "5m"}})), "none");
}

TEST_F(OllamaRequestTest, LinesTogetherAreTheAnswer) {
  const CompletionRequest request = good(generate({}));
  CompletionStream stream(request, ollama_generate_form(request));
  std::string lines = stream.on_start();
  lines += stream.on_text(0, "ab");
  lines += stream.on_finished(0, result_of(request, "abc"));
  EXPECT_TRUE(stream.is_over());
  EXPECT_EQ(stream.keep_alive(), "") << "every line is an object";
  std::string text;
  json last = json::object();
  for (size_t at = 0; at < lines.size();) {
    const size_t end = lines.find('\n', at);
    EXPECT_FALSE(last.value("done", false)) << "nothing follows the end";
    last = json::parse(lines.substr(at, end - at));
    text += last["response"].get<std::string>();
    at = end + 1;
  }
  EXPECT_EQ(text, "abc");
  CompletionAnswer answer(request);
  answer.add(0, result_of(request, "abc"));
  json whole = json::parse(ollama_generate_body(request, answer));
  EXPECT_EQ(whole["response"], "abc");
  whole["response"] = "";
  EXPECT_EQ(last, whole);
  EXPECT_EQ(last["model"], "story");
  EXPECT_EQ(last["created_at"], "2023-11-14T22:13:21Z");
  EXPECT_EQ(last["done"], true);
  EXPECT_EQ(last["done_reason"], "length");
  EXPECT_EQ(last["total_duration"], 60'000'000) << "nanoseconds";
  EXPECT_EQ(last["prompt_eval_duration"], 7'000'000);
  EXPECT_EQ(last["eval_duration"], 50'000'000);
  EXPECT_EQ(last["eval_count"], 3);
}

TEST_F(OllamaRequestTest, AFailureIsALine) {
  context_.chat = &template_;
  const CompletionRequest request = good(chat({}));
  CompletionStream stream(request, ollama_chat_form(request));
  EXPECT_EQ(json::parse(stream.on_text(0, "a"))["message"], json::parse(R"({"role":"assistant","content":"a"})"));
  EXPECT_EQ(stream.on_error(unavailable("gone")), "{\"error\":\"gone\"}\n");
}

TEST_F(OllamaRequestTest, ModelsAreListed) {
  const json tags = json::parse(ollama_models_body(models_, false, 1))["models"];
  ASSERT_EQ(tags.size(), 2u);
  for (const json& tag : tags) {
    for (const char* name : {"name", "model", "modified_at", "size", "digest", "details"}) {
      EXPECT_TRUE(tag.contains(name)) << name;
    }
  }
  EXPECT_EQ(tags[1]["name"], "story");
  const json running = json::parse(ollama_models_body(models_, true, 1))["models"][1];
  EXPECT_EQ(running["expires_at"], "1970-01-02T00:00:01Z");
  EXPECT_EQ(running["context_length"], kTestContext);
}

}  // namespace ollama_request_test
}  // namespace optserve::http_api
