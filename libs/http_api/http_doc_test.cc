// docs/http_api.md has the tables of fields as they are in the code, and its examples are valid requests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "http_api/chat/chat_request.h"
#include "http_api/chat/chat_template.h"
#include "http_api/jobs/job_fields.h"
#include "http_api/jobs/job_list.h"
#include "http_api/jobs/job_request.h"
#include "http_api/metaseq/metaseq_request.h"
#include "http_api/ollama/ollama_request.h"
#include "http_api/openai/completion_fields.h"
#include "http_api/openai/completion_request.h"
#include "http_api/openai/test_models.h"
#include "http_api/responses/response_request.h"
#include "http_api/tokenize/tokenize.h"

namespace optserve::http_api {
namespace http_doc_test {

std::string page() {
  std::ostringstream text;
  for (const char* name : {OPTSERVE_DOCS "/http_api.md", OPTSERVE_DOCS "/http_chat.md"}) {
    text << std::ifstream(name).rdbuf();
  }
  return text.str();
}

TEST(HttpDoc, HoldsTheTablesOfFields) {
  const std::string text = page();
  for (const FieldTable* table : {&completion_fields(), &tokenize_fields(), &detokenize_fields(), &job_fields(),
                                  &metaseq_fields(), &queue_control_fields(), &chat_own_fields(),
                                  &response_own_fields(), &ollama_generate_fields(), &ollama_chat_fields()}) {
    const std::string rows = field_rows(*table);
    EXPECT_NE(text.find(rows), std::string::npos) << "expected in docs/http_api.md or docs/http_chat.md:\n\n" << rows;
  }
}

TEST(HttpDoc, NamesEveryCodeOfAnError) {
  const std::string text = page();
  for (int code = 1; code <= wire_range(ErrorCode{}).last; ++code) {
    const ApiError error = error_of(refuse(static_cast<ErrorCode>(code), ""));
    EXPECT_THAT(text, ::testing::ContainsRegex("\\| " + std::to_string(error.status) + " \\| `" + error.code + "`"));
  }
  for (const ApiError& error : {invalid_api_key(), forbidden(""), unknown_route("", ""), method_not_allowed("", ""),
                                request_too_large("", 1), unsupported_media_type(""), rate_limited("", 1)}) {
    EXPECT_THAT(text, ::testing::ContainsRegex("\\| " + std::to_string(error.status) + " \\| `" + error.code + "`"));
  }
}

TEST(HttpDoc, ExamplesAreGoodRequests) {
  Models models = test_models("opt-125m");
  models.set_served({});  // the only model
  const ChatTemplate chat = ChatTemplate::plain();
  RequestContext with_template = test_context();
  with_template.chat = &chat;
  const auto error_of_parsed = [](const auto& parsed) { return parsed.ok() ? "" : parsed.error().message; };
  const std::map<std::string, std::function<std::string(const std::string&)>> parsers = {
      {"completions",
       [&](const std::string& body) { return error_of_parsed(parse_completion(body, models, test_context())); }},
      {"chat", [&](const std::string& body) { return error_of_parsed(parse_chat(body, models, with_template)); }},
      {"chat-template",
       [&](const std::string& text) {
         const Result<ChatTemplate> parsed = ChatTemplate::parse(text);
         return parsed.ok() ? std::string() : parsed.refusal().message;
       }},
      {"responses",
       [&](const std::string& body) { return error_of_parsed(parse_response(body, models, with_template)); }},
      {"ollama-generate",
       [&](const std::string& body) { return error_of_parsed(parse_ollama_generate(body, models, with_template)); }},
      {"ollama-chat",
       [&](const std::string& body) { return error_of_parsed(parse_ollama_chat(body, models, with_template)); }},
      {"metaseq",
       [&](const std::string& body) { return error_of_parsed(parse_metaseq(body, models, test_context())); }},
      {"jobs", [&](const std::string& body) { return error_of_parsed(parse_jobs(body, models, {})); }},
      {"queue", [&](const std::string& body) { return error_of_parsed(parse_queue_control(body)); }},
      {"tokenize", [&](const std::string& body) { return error_of_parsed(tokenize(body, models)); }},
      {"detokenize", [&](const std::string& body) { return error_of_parsed(detokenize(body, models)); }}};
  std::map<std::string, int> tried;
  const std::string text = page();
  for (size_t at = text.find("```json "); at != std::string::npos; at = text.find("```json ", at + 1)) {
    const size_t line = text.find('\n', at), end = text.find("\n```", line);
    ASSERT_NE(end, std::string::npos);
    const std::string name = text.substr(at + 8, line - at - 8), body = text.substr(line + 1, end - line - 1);
    ASSERT_TRUE(parsers.contains(name)) << name;
    EXPECT_EQ(parsers.at(name)(body), "") << body;
    ++tried[name];
  }
  EXPECT_EQ(tried.size(), parsers.size()) << "each form has an example";
}

}  // namespace http_doc_test
}  // namespace optserve::http_api
