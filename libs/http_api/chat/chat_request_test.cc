#include "http_api/chat/chat_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/program.h"
#include "http_api/chat/chat_messages.h"
#include "http_api/openai/completion_stream.h"
#include "http_api/openai/request_fixture.h"
#include "support/temporary_folder.h"

namespace optserve::http_api {
namespace chat_request_test {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::string_view kTemplate =
    R"({"system": "[{content}]", "user": "Q:{content} ", "assistant": "A:{content} ", "answer": "A:", "stop": ["Q:"]})";

class ChatRequestTest : public RequestTest {
 protected:
  ChatRequestTest() { context_.chat = &chat_; }

  static json body(const json& changes) {
    return with({{"model", "story"}, {"max_tokens", 8}, {"messages", {{{"role", "user"}, {"content", "the end"}}}}},
                changes);
  }
  Parsed<CompletionRequest> parse(const json& changes) { return parse_chat(body(changes).dump(), models_, context_); }
  CompletionRequest good(const json& changes) { return value_of(parse(changes), changes); }
  void expect_error(const json& changes, const std::string& param, const std::string& part = "") {
    expect_refused(parse(changes), changes, param, part);
  }

  ChatTemplate chat_ = ChatTemplate::parse(kTemplate).value();
  RequestContext context_ = test_context();
};

TEST(ChatTemplate, WritesTheConversationAndTheBeginningOfTheAnswer) {
  const ChatTemplate plain = ChatTemplate::plain();
  EXPECT_EQ(plain.render({{ChatRole::kSystem, "Be kind."},
                          {ChatRole::kUser, "Hello\n"},
                          {ChatRole::kAssistant, " Hi {content}"},
                          {ChatRole::kUser, "Bye"}}),
            "Be kind.\n\nUser: Hello\nAssistant: Hi {content}\nUser: Bye\nAssistant:");
  EXPECT_THAT(plain.stop(), ElementsAre("\nUser:"));
  EXPECT_EQ(plain.render({{ChatRole::kUser, " \n"}}), "User: \nAssistant:");
}

TEST(ChatTemplate, FaultsAreNamed) {
  const json good = json::parse(kTemplate);
  const auto fault = [&](const json& changes) {
    json changed = good;
    if (changes.is_object()) changed.update(changes);
    const auto parsed = ChatTemplate::parse(changed.dump());
    return parsed.ok() ? "none" : parsed.refusal().message;
  };
  EXPECT_EQ(fault({}), "none");
  EXPECT_THAT(fault({{"user", "no place"}}), HasSubstr("user: expected {content} once"));
  EXPECT_THAT(fault({{"system", "{content}{content}"}}), HasSubstr("system: expected {content} once"));
  EXPECT_THAT(fault({{"assistant", 3}}), HasSubstr("assistant: expected a text"));
  EXPECT_THAT(fault({{"answer", nullptr}}), HasSubstr("answer: expected a text"));
  EXPECT_THAT(fault({{"stop", {""}}}), HasSubstr("stop: expected texts of 1 to 64 bytes"));
  EXPECT_THAT(fault({{"stop", std::vector<std::string>(9, "x")}}), HasSubstr("stop: expected up to 8 texts"));
  EXPECT_THAT(fault({{"tool", "x"}}), HasSubstr("unknown field 'tool'"));
  EXPECT_FALSE(ChatTemplate::parse("{").ok());
}

TEST(ChatTemplate, IsAFileOrPlain) {
  EXPECT_EQ(ChatTemplate::load("plain").render({}), "Assistant:");
  const test_support::TemporaryFolder folder;
  const std::string path = folder / "chat_template.json";
  std::ofstream(path) << kTemplate;
  EXPECT_EQ(ChatTemplate::load(path).render({{ChatRole::kUser, "x"}}), "Q:x A:");
  std::ofstream(path) << "{}";
  EXPECT_THROW(ChatTemplate::load(path), ConfigurationError);
  EXPECT_THROW(ChatTemplate::load("/no/such/file"), ConfigurationError);
}

TEST_F(ChatRequestTest, IsACompletionOfWhatTheTemplateWrites) {
  const CompletionRequest request = good(
      {{"messages",
        {{{"role", "developer"}, {"content", "Be kind"}},
         {{"role", "user"}, {"content", {{{"type", "text"}, {"text", "the "}}, {{"type", "text"}, {"text", "end"}}}}},
         {{"role", "assistant"}, {"content", nullptr}, {"tool_calls", json::array()}},
         {{"role", "user"}, {"content", "on"}, {"name", "Ann"}}}},
       {"stop", "x"},
       {"temperature", 0.5},
       {"top_k", 7}});
  EXPECT_EQ(request.prompts[0].text, "[Be kind]Q:the end A: Q:on A:");
  EXPECT_THAT(request.job.stop, ElementsAre("x", "Q:"));
  EXPECT_EQ(request.job.sampling.top_k, 7);
  EXPECT_EQ(request.job.max_new_tokens, 8);
  EXPECT_EQ(request.id, "chatcmpl-r1");
}

TEST_F(ChatRequestTest, WithoutATemplateTheErrorSaysHow) {
  context_.chat = nullptr;
  expect_error({}, "messages", "--chat-template plain");
}

TEST_F(ChatRequestTest, TheAnswerTakesWhatFits) {
  json without = body({});
  without.erase("max_tokens");
  const CompletionRequest request = std::move(parse_chat(without.dump(), models_, context_)).value();
  std::vector<TokenId> ids{2};
  ASSERT_TRUE(story().text->encoder.encode("Q:the end A:", ids).ok());
  EXPECT_EQ(request.job.max_new_tokens, kTestContext - static_cast<int>(ids.size()));
  EXPECT_EQ(good({{"max_tokens", nullptr}, {"max_completion_tokens", 5}}).job.max_new_tokens, 5);
  EXPECT_EQ(good({{"max_tokens", 5}, {"max_completion_tokens", 5}}).job.max_new_tokens, 5);
  expect_error({{"max_tokens", 5}, {"max_completion_tokens", 6}}, "max_tokens", "different values");
  expect_error({{"messages", {{{"role", "user"}, {"content", std::string(200, 'q')}}}}}, "messages",
               "maximum context length");
}

TEST_F(ChatRequestTest, WrongMessagesAreNamed) {
  const auto wrong = [this](const json& message, const std::string& param, const std::string& part = "") {
    expect_error({{"messages", {{{"role", "user"}, {"content", "a"}}, message}}}, param, part);
  };
  wrong({{"content", "a"}}, "messages[1].role");
  wrong({{"role", "tool"}, {"content", "a"}}, "messages[1].role", "there are no tools");
  wrong({{"role", "user"}}, "messages[1].content", "missing");
  wrong({{"role", "user"}, {"content", 7}}, "messages[1].content");
  wrong({{"role", "user"}, {"content", {{{"type", "image_url"}, {"image_url", "x"}}}}}, "messages[1].content[0].type");
  wrong({{"role", "user"}, {"content", {{{"type", "text"}}}}}, "messages[1].content[0].text");
  wrong({{"role", "assistant"}, {"content", "a"}, {"tool_calls", {1}}}, "messages[1].tool_calls");
  wrong({{"role", "user"}, {"content", "a"}, {"colour", 1}}, "messages[1].colour", "Unknown field");
  expect_error({{"messages", json::array()}}, "messages");
  expect_error({{"messages", nullptr}}, "messages");
  expect_error({{"messages", "a"}}, "messages");
  expect_error({{"tools", {1}}}, "tools", "not supported");
  expect_error({{"prompt", "a"}}, "prompt", "Unknown field");
  expect_error({{"top_logprobs", 2}}, "top_logprobs", "only allowed with logprobs");
  good({{"tools", json::array()}, {"response_format", {{"type", "text"}}}, {"reasoning_effort", "low"}});
}

TEST_F(ChatRequestTest, AnswersInTheFormOfChats) {
  const CompletionRequest request = good({{"n", 2}, {"logprobs", true}, {"top_logprobs", 1}, {"temperature", 0}});
  CompletionAnswer answer(request);
  answer.add(0, test_result(request, request.jobs()[0], {byte_id('a'), 2}, story()));
  const json made = json::parse(chat_body(request, answer));
  EXPECT_EQ(made["object"], "chat.completion");
  ASSERT_EQ(made["choices"].size(), 2u);
  EXPECT_EQ(made["choices"][1]["index"], 1);
  EXPECT_EQ(made["choices"][0]["message"], json::parse(R"({"role":"assistant","content":"a","refusal":null})"));
  EXPECT_EQ(made["choices"][0]["finish_reason"], "stop");
  const json content = made["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u) << "the end of the text too";
  EXPECT_EQ(content[0]["token"], "a");
  EXPECT_EQ(content[0]["logprob"], -1.0);
  EXPECT_EQ(content[0]["bytes"], json({97}));
  EXPECT_EQ(content[0]["top_logprobs"].size(), 1u);
  EXPECT_EQ(content[1]["bytes"], nullptr);
  EXPECT_EQ(made["usage"]["completion_tokens"], 4);
}

TEST_F(ChatRequestTest, StreamedTextIsTheText) {
  const CompletionRequest request = good({{"stream", true}, {"stream_options", {{"include_usage", true}}}});
  CompletionStream stream(request, chat_form(request));
  const protocol::JobResult result =
      test_result(request, request.jobs()[0], {byte_id('a'), byte_id('b'), byte_id('c')}, story());
  std::string frames = stream.on_start();
  frames += stream.on_text(0, "a");
  frames += stream.on_text(0, "b");
  frames += stream.on_finished(0, result);
  EXPECT_TRUE(stream.is_over());
  std::string text, role, reason, last;
  json usage;
  for (size_t at = 0; (at = frames.find("data: ", at)) != std::string::npos; ++at) {
    last = frames.substr(at + 6, frames.find('\n', at) - at - 6);
    if (last == "[DONE]") break;
    const json chunk = json::parse(last);
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    if (chunk["choices"].empty()) {
      usage = chunk["usage"];
      continue;
    }
    const json choice = chunk["choices"][0];
    role += choice["delta"].value("role", "");
    text += choice["delta"].value("content", "");
    if (choice["finish_reason"].is_string()) reason = choice["finish_reason"];
  }
  EXPECT_EQ(text, "abc");
  EXPECT_EQ(role, "assistant") << "once, at the beginning";
  EXPECT_EQ(reason, "length");
  EXPECT_EQ(usage["completion_tokens"], 3);
  EXPECT_EQ(last, "[DONE]");
}

}  // namespace chat_request_test
}  // namespace optserve::http_api
