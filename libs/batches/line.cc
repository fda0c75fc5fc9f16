#include "batches/line.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/input_check.h"
#include "base/limits.h"
#include "http_api/chat/chat_request.h"
#include "http_api/jobs/job_request.h"
#include "http_api/openai/json_text.h"
#include "http_api/openai/request_fields.h"

namespace optserve::batches {
namespace {

using http_api::ApiError;
using http_api::json_string;
using nlohmann::json;
using protocol::JobSpec;
using MaybeError = std::optional<ApiError>;

constexpr std::array kRequestFields = {"custom_id", "method", "url", "body"};

// The client may be gone for a long time, and fetches the result when the batch is run again.
void keep_running(JobSpec& job, bool has_deadline) {
  job.on_disconnect = protocol::OnDisconnect::kContinue;
  if (!has_deadline) job.ttl_ms = limits::kJobTtlMsMax;
}

MaybeError read_custom_id(const json& line, std::string& custom_id) {
  const auto id = line.find("custom_id");
  if (id == line.end() || id->is_null()) return std::nullopt;
  if (!id->is_string()) return http_api::invalid_value("custom_id", "custom_id is not text");
  const auto& text = id->get_ref<const std::string&>();
  if (text.size() > kCustomIdBytesMax) {
    return http_api::invalid_value("custom_id", "custom_id has " + std::to_string(text.size()) +
                                                    " bytes, expected at most " + std::to_string(kCustomIdBytesMax));
  }
  custom_id = text;
  return std::nullopt;
}

// An empty `wanted` allows any known URL.
MaybeError check_url(const json& line, std::string_view wanted) {
  const auto url = line.find("url");
  const std::string found = url == line.end() || !url->is_string() ? std::string() : url->get<std::string>();
  if (wanted.empty() ? std::ranges::find(kRequestUrls, found) != kRequestUrls.end() : found == wanted) {
    return std::nullopt;
  }
  std::string names;
  for (const std::string_view one : kRequestUrls) names += (names.empty() ? "" : ", ") + std::string(one);
  return http_api::invalid_value("url", "url is not " + (wanted.empty() ? "one of " + names : std::string(wanted)));
}

MaybeError check_request(const json& line, std::string_view wanted_url) {
  for (const auto& [name, value] : line.items()) {
    if (std::ranges::find(kRequestFields, name) == kRequestFields.end()) {
      return http_api::invalid_value(name, found_text(name) + " is no field of a line of a batch");
    }
  }
  const auto id = line.find("custom_id");
  if (id == line.end() || !id->is_string() || id->get_ref<const std::string&>().empty()) {
    return http_api::invalid_value("custom_id", "custom_id is missing, expected text that is this line's alone");
  }
  if (line.contains("method") && line.at("method") != "POST") {
    return http_api::invalid_value("method", "method is not POST");
  }
  if (MaybeError error = check_url(line, wanted_url)) return error;
  const auto body = line.find("body");
  if (body == line.end() || !body->is_object()) {
    return http_api::invalid_value("body", "body is missing, expected an object");
  }
  return std::nullopt;
}

}  // namespace

Line::Line(std::string_view text, uint64_t number, const LineContext& context)
    : number_(number), id_(context.run + "-" + std::to_string(number)), is_request_(!context.url.empty()) {
  error_ = text.size() > kLineBytesMax ? http_api::request_too_large("line", kLineBytesMax) : read(text, context);
}

Line::Line(uint64_t number, const LineContext& context, ApiError error)
    : number_(number),
      id_(context.run + "-" + std::to_string(number)),
      is_request_(!context.url.empty()),
      error_(std::move(error)) {}

MaybeError Line::read(std::string_view text, const LineContext& context) {
  http_api::Parsed<json> parsed = http_api::parse_body(text);
  if (!parsed.ok()) return parsed.error();
  json& line = parsed.value();
  if (MaybeError error = read_custom_id(line, custom_id_)) return error;
  is_request_ = !context.url.empty() || line.contains("url") || line.contains("body");
  return is_request_ ? read_request(line, context) : read_job(std::move(line), context);
}

MaybeError Line::read_request(const json& line, const LineContext& context) {
  if (MaybeError error = check_request(line, context.url)) return error;
  url_ = line.at("url");
  json wanted_body = line.at("body");
  if (!http_api::has_field(wanted_body, "model") && !context.default_model.empty()) {
    wanted_body["model"] = context.default_model;
  }
  if (http_api::find_field<json>(wanted_body, "stream") == json(true)) {
    return http_api::invalid_value("stream", "stream is true, and the answers of a batch are not streamed");
  }
  if (http_api::find_field<json>(wanted_body, "background") == json(true)) {
    return http_api::invalid_value("background", "background is true, and a batch collects its answers itself");
  }
  if (MaybeError error = read_body(wanted_body, context)) return error;
  jobs_ = request_->jobs();
  for (JobSpec& job : jobs_) keep_running(job, http_api::has_field(wanted_body, "deadline_ms"));
  return std::nullopt;
}

MaybeError Line::read_body(const json& body, const LineContext& context) {
  http_api::RequestContext request;
  request.request_id = id_;
  request.created = context.created;
  request.tenant = context.caller.tenant;
  request.idempotency_key = id_;
  request.chat = context.chat;
  const std::string text = http_api::json_text(body);
  if (url_ == kResponsesUrl) {
    http_api::Parsed<http_api::ResponseRequest> parsed = http_api::parse_response(text, context.models, request);
    if (!parsed.ok()) return parsed.error();
    request_ = std::make_unique<http_api::CompletionRequest>(std::move(parsed.value().completion));
    response_ = std::move(parsed.value().facts);
    return std::nullopt;
  }
  const auto parse = url_ == kChatUrl ? http_api::parse_chat : http_api::parse_completion;
  http_api::Parsed<http_api::CompletionRequest> parsed = parse(text, context.models, request);
  if (!parsed.ok()) return parsed.error();
  request_ = std::make_unique<http_api::CompletionRequest>(std::move(parsed).value());
  return std::nullopt;
}

std::string Line::body_of(const http_api::CompletionAnswer& answer) const {
  if (url_ == kChatUrl) return http_api::chat_body(*request_, answer);
  if (url_ == kCompletionsUrl) return answer.body();
  return http_api::json_text(http_api::response_json(response_, *answer.choices().front().result));
}

MaybeError Line::read_job(json line, const LineContext& context) {
  line.erase("custom_id");
  if (line.contains("jobs") || line.contains("convert")) {
    return http_api::invalid_value("", "A line of a batch is one job that generates text");
  }
  if (!http_api::has_field(line, "model") && !context.default_model.empty()) line["model"] = context.default_model;
  const bool has_deadline = http_api::has_field(line, "ttl_ms");
  http_api::JobContext job{.caller = context.caller, .idempotency_key = id_};
  http_api::Parsed<http_api::JobsRequest> parsed = http_api::parse_jobs(http_api::json_text(line), context.models, job);
  if (!parsed.ok()) return parsed.error();
  jobs_ = std::move(parsed.value().jobs);
  for (JobSpec& one : jobs_) keep_running(one, has_deadline);
  return std::nullopt;
}

std::vector<JobSpec> Line::jobs(int attempt) const {
  check(!error_.has_value(), "a line with an error has no jobs");
  std::vector<JobSpec> all = jobs_;
  if (attempt == 1) return all;
  const std::string suffix = "-again" + std::to_string(attempt);
  for (JobSpec& job : all) {
    job.key.resize(std::min(job.key.size(), limits::kKeyBytesMax - suffix.size()));
    job.key += suffix;
  }
  return all;
}

std::string Line::begin_answer() const {
  std::string text = "{\"id\":" + json_string(id_);
  text += ",\"custom_id\":" + (custom_id_.empty() ? std::string("null") : json_string(custom_id_));
  return text;
}

Line::Answer Line::answer(std::vector<protocol::JobResult> results) const {
  check(!error_.has_value() && results.size() == jobs_.size(), "an answer needs the results of all jobs");
  if (!request_) {
    const protocol::JobResult& result = results.front();
    return {.text = begin_answer() + ",\"result\":" + http_api::json_text(job_json::result_json(result)) + "}\n",
            .prompt_tokens = result.prompt_tokens,
            .completion_tokens = static_cast<int64_t>(result.ids.size())};
  }
  http_api::CompletionAnswer answer(*request_);
  for (size_t i = 0; i < results.size(); ++i) answer.add(i, std::move(results[i]));
  const http_api::TokenUsage usage = answer.usage();
  return {.text = begin_answer() + ",\"response\":{\"status_code\":200,\"request_id\":" + json_string(id_) +
                  ",\"body\":" + body_of(answer) + "},\"error\":null}\n",
          .prompt_tokens = usage.prompt_tokens,
          .completion_tokens = usage.completion_tokens};
}

MaybeError Line::error_of(const std::vector<protocol::JobResult>& results) const {
  const int32_t context = request_ ? request_->model.context : 0;
  for (const protocol::JobResult& result : results) {
    if (auto error = http_api::error_of(result, context)) return error;
  }
  return std::nullopt;
}

std::string Line::error_line(const ApiError& error) const {
  const std::string body = http_api::error_body(error);
  // The {"error": {…}} of a job goes into its line without the outer braces.
  if (!is_request_) return begin_answer() + "," + body.substr(1) + "\n";
  return begin_answer() + ",\"response\":{\"status_code\":" + std::to_string(error.status) +
         ",\"request_id\":" + json_string(id_) + ",\"body\":" + body + "},\"error\":null}\n";
}

std::string Line::not_run_line(std::string_view code, std::string_view message) const {
  return begin_answer() + (is_request_ ? ",\"response\":null" : "") + ",\"error\":{\"code\":" + json_string(code) +
         ",\"message\":" + json_string(message) + "}}\n";
}

LineForm check_request_line(std::string_view text, std::string_view url) {
  LineForm form;
  const http_api::Parsed<json> parsed = http_api::parse_body(text);
  if (!parsed.ok()) {
    form.error = parsed.error();
    return form;
  }
  const json& line = parsed.value();
  form.error = read_custom_id(line, form.custom_id);
  if (!form.error) form.error = check_request(line, url);
  if (form.error) return form;
  const auto model = line.at("body").find("model");
  if (model != line.at("body").end() && model->is_string()) form.model = *model;
  return form;
}

std::optional<uint64_t> answered_number(std::string_view line, std::string_view run) {
  const std::string begin = "{\"id\":\"" + std::string(run) + "-";
  if (!line.starts_with(begin)) return std::nullopt;
  uint64_t number = 0;
  const char* first = line.data() + begin.size();
  const auto [end, error] = std::from_chars(first, line.data() + line.size(), number);
  if (error != std::errc() || end == line.data() + line.size() || *end != '"') return std::nullopt;
  return number;
}

}  // namespace optserve::batches
