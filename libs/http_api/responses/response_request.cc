#include "http_api/responses/response_request.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/limits.h"
#include "http_api/chat/chat_messages.h"
#include "http_api/openai/completion_fields.h"
#include "http_api/openai/json_text.h"

namespace optserve::http_api {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using protocol::JobResult;
using protocol::JobState;
using enum FieldKind;

constexpr std::string_view kIdPrefix = "resp_", kGroupPrefix = "resp.";
// The numbers of the events before and after the text.
constexpr int64_t kTextNumbersFrom = 3;

// Fields of completions that mean the same here.
constexpr std::array<std::string_view, 28> kOfCompletions = {"logit_bias",
                                                             "seed",
                                                             "stop",
                                                             "user",
                                                             "temperature",
                                                             "top_k",
                                                             "top_p",
                                                             "min_p",
                                                             "typical_p",
                                                             "repetition_penalty",
                                                             "presence_penalty",
                                                             "frequency_penalty",
                                                             "ignore_eos",
                                                             "allowed_token_ids",
                                                             "bad_words",
                                                             "include_stop_str_in_output",
                                                             "min_tokens",
                                                             "priority",
                                                             "stop_token_ids",
                                                             "deadline_ms",
                                                             "idempotency_key",
                                                             "queue_timeout_ms",
                                                             "profile",
                                                             "top_p_decay",
                                                             "top_p_min",
                                                             "top_p_decay_after",
                                                             "prompt_presence_penalty",
                                                             "prompt_frequency_penalty"};

FieldTable fields_of_responses() {
  FieldTable table;
  table.push_back({.name = "model",
                   .kind = kString,
                   .help = "Name of the model (`GET /v1/models`); may be left out where only one is served"});
  table.push_back({.name = "input",
                   .kind = kTextOrMessages,
                   .help =
                       "What a user says, or a conversation as that of /v1/chat/completions; without a template for "
                       "chats a text that is continued as it is",
                   .required = true});
  table.push_back({.name = "instructions", .kind = kString, .help = "What comes before it, as of the system"});
  table.push_back({.name = "max_output_tokens",
                   .kind = kInteger,
                   .help = "Most tokens of the output; by default as many as fit",
                   .min = 1,
                   .max = static_cast<double>(limits::kContextTokensMax)});
  table.push_back({.name = "stream", .kind = kBoolean, .fallback = "false", .help = "Answer with server-sent events"});
  table.push_back({.name = "background",
                   .kind = kBoolean,
                   .fallback = "false",
                   .help = "The answer comes at once, and a client that goes away cancels nothing"});
  table.push_back({.name = "metadata", .kind = kAny, .help = "Is in the answer, and not kept"});
  table.push_back(refused_field("previous_response_id", "", "send the whole conversation"));
  table.push_back(refused_field("conversation", "", "send the whole conversation"));
  table.push_back(refused_field("prompt", "", "there are no stored prompts"));
  table.push_back(refused_field("tools", "[]", "models call no tools"));
  table.push_back(refused_field("text", R"({"format":{"type":"text"}})", "outputs are plain text"));
  table.push_back(refused_field("truncation", "\"disabled\"", "inputs that are too long are refused"));
  table.push_back(refused_field("include", "[]", "there is nothing else"));
  table.push_back(refused_field("top_logprobs", "0", "see /v1/chat/completions"));
  table.push_back(ignored_field("store", "Results are kept for a while in any case"));
  table.push_back(ignored_field("stream_options", "Events are never padded"));
  table.push_back(ignored_field("reasoning", "Models do not reason before they answer"));
  table.push_back(ignored_field("tool_choice", "Models call no tools"));
  table.push_back(ignored_field("parallel_tool_calls", "Models call no tools"));
  table.push_back(ignored_field("max_tool_calls", "Models call no tools"));
  table.push_back(ignored_field("service_tier", "`priority` orders jobs"));
  table.push_back(ignored_field("prompt_cache_key", "Beginnings of prompts are shared anyway"));
  table.push_back(ignored_field("safety_identifier", "`user` names who asks"));
  return table;
}

std::optional<ApiError> add_prompt_of(const json& body, const ChatTemplate* chat, json& out) {
  const json& input = body.at("input");
  const std::string instructions = find_field<std::string>(body, "instructions").value_or("");
  if (input.is_string() && instructions.empty() && chat == nullptr) {
    out["prompt"] = input;
    return std::nullopt;
  }
  if (auto error = need_template(chat, input.is_string() ? "instructions" : "input")) return error;
  std::vector<ChatMessage> messages;
  if (!instructions.empty()) messages.push_back({ChatRole::kSystem, instructions});
  if (input.is_string()) {
    messages.push_back({ChatRole::kUser, input.get<std::string>()});
  } else {
    Parsed<std::vector<ChatMessage>> given = read_messages(input, "input");
    if (!given.ok()) return given.error();
    for (ChatMessage& message : given.value()) messages.push_back(std::move(message));
  }
  out["prompt"] = chat->render(messages);
  add_template_stops(*chat, out);
  return std::nullopt;
}

Parsed<json> completion_of_response(const json& body, const Models& models, const ChatTemplate* chat) {
  json out{{"stream", find_field<bool>(body, "stream").value_or(false)},
           {"background", find_field<bool>(body, "background").value_or(false)}};
  if (has_field(body, "model")) out["model"] = body.at("model");
  for (const std::string_view name : kOfCompletions) {
    if (has_field(body, name)) out[std::string(name)] = body.at(std::string(name));
  }
  if (auto error = add_prompt_of(body, chat, out)) return *error;
  if (const auto tokens = find_field<int64_t>(body, "max_output_tokens")) {
    out["max_tokens"] = *tokens;
    return out;
  }
  if (auto error = add_room_for_output(out, models)) return *error;
  return out;
}

ApiError in_words_of_responses(ApiError error) {
  if (error.param == "prompt") error.param = "input";
  if (error.param == "max_tokens") error.param = "max_output_tokens";
  return error;
}

std::string_view status_word(const JobResult& result) {
  switch (result.state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kRunning:
      return "in_progress";
    case JobState::kSucceeded:
      return result.finish_reason == sampling::FinishReason::kLength ? "incomplete" : "completed";
    case JobState::kCancelled:
      return "cancelled";
    case JobState::kFailed:
    case JobState::kExpired:
    case JobState::kDead:
      break;
  }
  return "failed";
}

std::string message_id(const JobId& job) { return "msg_" + job.hex(); }

ordered_json text_part(std::string_view text) {
  return {{"type", "output_text"},
          {"text", text},
          {"annotations", ordered_json::array()},
          {"logprobs", ordered_json::array()}};
}

ordered_json message_item(const JobId& job, std::string_view status, ordered_json content) {
  return {{"type", "message"},
          {"id", message_id(job)},
          {"status", status},
          {"role", "assistant"},
          {"content", std::move(content)}};
}

// A value of the request that the object repeats.
ordered_json request_value(const ResponseFacts& facts, const char* name, ordered_json otherwise) {
  const auto found = facts.request.find(name);
  return found == facts.request.end() || found->is_null() ? otherwise : ordered_json(*found);
}

class ResponseForm final : public StreamForm {
 public:
  ResponseForm(ResponseFacts facts, const JobId& job) : events_(std::move(facts), job) {}

  std::string begin() override { return events_.begin(); }
  std::string text(int, std::string_view text) override { return events_.text(text); }
  std::string last(const LastPiece& piece) override { return events_.end(piece.result); }
  std::string end(const TokenUsage&, const JobResult&) override { return ""; }
  std::string error(const ApiError& error) override { return events_.error(error); }
  std::string failed(const ApiError&, const JobResult& result) override { return events_.end(result); }

 private:
  ResponseEvents events_;
};

class ResponseFollowForm final : public FollowForm {
 public:
  ResponseFollowForm(ResponseFacts facts, const JobId& job, int64_t after) : events_(std::move(facts), job, after) {}

  std::string begin() override { return events_.begin(); }
  std::string on_progress(const protocol::JobEvent&) override { return ""; }
  std::string on_text(std::string_view piece) override { return events_.text(piece); }
  std::string on_restarted() override {
    is_over_ = true;
    ApiError error =
        internal_error("The text was computed again and differs from what was sent. Retrieve the response.");
    error.code = "stream_restarted";
    return events_.error(error);
  }
  std::string on_finished(const JobResult& result) override {
    is_over_ = true;
    return events_.end(result);
  }
  std::string on_lost(const Refusal& why) override {
    is_over_ = true;
    return events_.error(error_of(why));
  }

 private:
  ResponseEvents events_;
};

}  // namespace

const FieldTable& response_own_fields() {
  static const FieldTable kTable = fields_of_responses();
  return kTable;
}

const FieldTable& response_fields() {
  static const FieldTable kTable = with_completion_fields(response_own_fields(), [](std::string_view name) {
    return std::ranges::find(kOfCompletions, name) != kOfCompletions.end();
  });
  return kTable;
}

Parsed<ResponseRequest> parse_response(std::string_view text, const Models& models, const RequestContext& context) {
  const Parsed<json> parsed = parse_body(text);
  if (!parsed.ok()) return parsed.error();
  const json& body = parsed.value();
  if (auto error = check_fields(body, response_fields())) return *error;
  if (!has_field(body, "input")) return invalid_value("input", "input is null, expected a string or messages");
  const Parsed<json> completion = completion_of_response(body, models, context.chat);
  if (!completion.ok()) return in_words_of_responses(completion.error());
  Parsed<CompletionRequest> made = parse_completion(completion.value().dump(), models, context);
  if (!made.ok()) return in_words_of_responses(made.error());
  ResponseRequest request{std::move(made).value(), {}};
  CompletionRequest& one = request.completion;
  // A repeated request with a key must be the same job, at whatever time it comes.
  const int64_t created = one.job.key.empty() ? one.created : 0;
  one.lone_group = std::string(kGroupPrefix) + (one.keeps_running ? "b" : "f") + "." + std::to_string(created) + "." +
                   one.model.name;
  if (one.stream) one.background = false;  // it is followed now, but goes on if the follower leaves
  request.facts = {one.model.name, one.created, one.keeps_running, {}};
  for (const char* name : {"instructions", "max_output_tokens", "metadata", "temperature", "top_p", "user"}) {
    if (has_field(body, name)) request.facts.request[name] = body.at(name);
  }
  return request;
}

std::optional<JobId> job_of_response(std::string_view id) {
  if (!id.starts_with(kIdPrefix)) return std::nullopt;
  return JobId::from_hex(id.substr(kIdPrefix.size()));
}

std::string response_id(const JobId& job) { return std::string(kIdPrefix) + job.hex(); }

std::optional<ResponseFacts> facts_of_group(std::string_view group) {
  if (!group.starts_with(kGroupPrefix)) return std::nullopt;
  group.remove_prefix(kGroupPrefix.size());
  if (group.size() < 4 || (group[0] != 'b' && group[0] != 'f') || group[1] != '.') return std::nullopt;
  ResponseFacts facts;
  facts.is_background = group[0] == 'b';
  group.remove_prefix(2);
  const auto [end, error] = std::from_chars(group.data(), group.data() + group.size(), facts.created);
  if (error != std::errc() || end == group.data() + group.size() || *end != '.') return std::nullopt;
  facts.model = std::string(end + 1, group.data() + group.size());
  return facts;
}

ordered_json response_json(const ResponseFacts& facts, const JobResult& result) {
  const std::string_view status = status_word(result);
  ordered_json error, incomplete, usage, output = ordered_json::array();
  const bool has_ended = protocol::is_terminal(result.state);
  if (status == "failed") {
    error = {{"code", "server_error"}, {"message", error_of(result)->message}};
  } else if (status == "incomplete") {
    incomplete = {{"reason", "max_output_tokens"}};
  }
  if (status == "completed" || status == "incomplete") {
    output.push_back(message_item(result.job, status, ordered_json::array({text_part(result.text)})));
  }
  if (has_ended) {
    usage = {{"input_tokens", result.prompt_tokens},
             {"input_tokens_details", {{"cached_tokens", 0}}},
             {"output_tokens", result.ids.size()},
             {"output_tokens_details", {{"reasoning_tokens", 0}}},
             {"total_tokens", static_cast<size_t>(result.prompt_tokens) + result.ids.size()}};
  }
  return {{"id", response_id(result.job)},
          {"object", "response"},
          {"created_at", facts.created},
          {"status", status},
          {"background", facts.is_background},
          {"error", std::move(error)},
          {"incomplete_details", std::move(incomplete)},
          {"instructions", request_value(facts, "instructions", nullptr)},
          {"max_output_tokens", request_value(facts, "max_output_tokens", nullptr)},
          {"model", facts.model},
          {"output", std::move(output)},
          {"parallel_tool_calls", false},
          {"previous_response_id", nullptr},
          {"reasoning", {{"effort", nullptr}, {"summary", nullptr}}},
          {"store", true},
          {"temperature", request_value(facts, "temperature", 1)},
          {"text", {{"format", {{"type", "text"}}}}},
          {"tool_choice", "none"},
          {"tools", ordered_json::array()},
          {"top_p", request_value(facts, "top_p", 1)},
          {"truncation", "disabled"},
          {"usage", std::move(usage)},
          {"user", request_value(facts, "user", nullptr)},
          {"metadata", request_value(facts, "metadata", ordered_json::object())}};
}

ResponseEvents::ResponseEvents(ResponseFacts facts, JobId job, int64_t after)
    : facts_(std::move(facts)), job_(job), after_(after), bytes_(bytes_before(after)) {}

uint64_t ResponseEvents::bytes_before(int64_t after) {
  return after > kTextNumbersFrom ? static_cast<uint64_t>(after - kTextNumbersFrom) : 0;
}

std::string ResponseEvents::event(int64_t number, std::string_view type, ordered_json fields) const {
  if (number <= after_) return "";
  ordered_json data{{"type", type}, {"sequence_number", number}};
  data.update(fields);
  return "event: " + std::string(type) + "\ndata: " + json_text(data) + "\n\n";
}

std::string ResponseEvents::begin() {
  JobResult running;
  running.job = job_;
  running.state = JobState::kRunning;
  const ordered_json response = response_json(facts_, running);
  const std::string item = message_id(job_);
  return event(0, "response.created", {{"response", response}}) +
         event(1, "response.in_progress", {{"response", response}}) +
         event(2, "response.output_item.added",
               {{"output_index", 0}, {"item", message_item(job_, "in_progress", ordered_json::array())}}) +
         event(3, "response.content_part.added",
               {{"item_id", item}, {"output_index", 0}, {"content_index", 0}, {"part", text_part("")}});
}

std::string ResponseEvents::text(std::string_view piece) {
  if (piece.empty()) return "";
  bytes_ += piece.size();
  return event(kTextNumbersFrom + static_cast<int64_t>(bytes_), "response.output_text.delta",
               {{"item_id", message_id(job_)},
                {"output_index", 0},
                {"content_index", 0},
                {"delta", piece},
                {"logprobs", ordered_json::array()}});
}

std::string ResponseEvents::end(const JobResult& result) {
  const std::string_view status = status_word(result);
  const int64_t number = kTextNumbersFrom + static_cast<int64_t>(result.text.size());
  const ordered_json response = response_json(facts_, result);
  const std::string rest = bytes_ < result.text.size() ? text(std::string_view(result.text).substr(bytes_)) : "";
  if (result.state != JobState::kSucceeded) {
    // There is no event for a cancelled response; clients see its status.
    return rest + event(number + 4, "response.failed", {{"response", response}});
  }
  const ordered_json place{{"item_id", message_id(job_)}, {"output_index", 0}, {"content_index", 0}};
  ordered_json done = place, part = place;
  done["text"] = result.text;
  done["logprobs"] = ordered_json::array();
  part["part"] = text_part(result.text);
  return rest + event(number + 1, "response.output_text.done", done) +
         event(number + 2, "response.content_part.done", part) +
         event(number + 3, "response.output_item.done",
               {{"output_index", 0},
                {"item", message_item(job_, status, ordered_json::array({text_part(result.text)}))}}) +
         event(number + 4, "response." + std::string(status), {{"response", response}});
}

std::string ResponseEvents::error(const ApiError& error) {
  ordered_json param, code;
  if (!error.param.empty()) param = error.param;
  if (!error.code.empty()) code = error.code;
  // Other connections may still receive events of text up to this number.
  const int64_t number = std::max(after_, kTextNumbersFrom + static_cast<int64_t>(bytes_)) + 1;
  return event(number, "error", {{"code", code}, {"message", error.message}, {"param", param}});
}

std::unique_ptr<FollowForm> response_follow_form(ResponseFacts facts, const JobId& job, int64_t after) {
  return std::make_unique<ResponseFollowForm>(std::move(facts), job, after);
}

std::unique_ptr<StreamForm> response_form(ResponseFacts facts, const JobId& job) {
  return std::make_unique<ResponseForm>(std::move(facts), job);
}

}  // namespace optserve::http_api
