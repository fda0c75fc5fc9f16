#include "http_api/chat/chat_request.h"

#include <algorithm>
#include <array>

#include "base/limits.h"
#include "http_api/chat/chat_messages.h"
#include "http_api/openai/completion_fields.h"
#include "http_api/openai/json_text.h"

namespace optserve::http_api {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using enum FieldKind;

// Fields of completions that chats do not have, or that mean something else there.
constexpr std::array<std::string_view, 12> kNotOfChats = {"prompt",
                                                          "best_of",
                                                          "echo",
                                                          "logprobs",
                                                          "suffix",
                                                          "max_tokens",
                                                          "stop",
                                                          "user",
                                                          "prompt_embeds",
                                                          "add_special_tokens",
                                                          "truncate_prompt_tokens",
                                                          "prompt_logprobs"};

bool is_of_chats(std::string_view completion_field) {
  return std::ranges::find(kNotOfChats, completion_field) == kNotOfChats.end();
}

FieldTable fields_of_chats() {
  FieldTable table;
  constexpr double kTokens = limits::kContextTokensMax;
  table.push_back({.name = "messages",
                   .kind = kMessages,
                   .help = "The conversation: `role` (system, developer, user, assistant) and `content` (a text, or a "
                           "list of parts of the type text)",
                   .required = true});
  table.push_back({.name = "max_completion_tokens",
                   .kind = kInteger,
                   .help = "Most tokens of the answer; by default as many as fit",
                   .min = 1,
                   .max = kTokens});
  table.push_back(
      {.name = "max_tokens", .kind = kInteger, .help = "The same under its old name", .min = 1, .max = kTokens});
  table.push_back({.name = "logprobs",
                   .kind = kBoolean,
                   .fallback = "false",
                   .help = "Log-probability of each token of the answer"});
  table.push_back({.name = "top_logprobs",
                   .kind = kInteger,
                   .help = "With `logprobs`: of this many best tokens at its place too",
                   .max = limits::kTopLogprobsMax});
  table.push_back({.name = "stop",
                   .kind = kStringOrList,
                   .help = "Texts of 1 to 64 bytes that end the answer; up to 16 with those of the template"});
  table.push_back({.name = "user",
                   .kind = kString,
                   .help = "Who shares the queue fairly with others, where the API key does not say it"});
  table.push_back(refused_field("tools", "[]", "models call no tools"));
  table.push_back(refused_field("tool_choice", "\"none\"", "models call no tools"));
  table.push_back(refused_field("functions", "[]", "models call no functions"));
  table.push_back(refused_field("function_call", "\"none\"", "models call no functions"));
  table.push_back(refused_field("modalities", "[\"text\"]", "answers are texts"));
  table.push_back(refused_field("audio", "", "answers are texts"));
  table.push_back(refused_field("prediction", "", "answers are computed anew"));
  table.push_back(refused_field("web_search_options", "", "models search nothing"));
  table.push_back(ignored_field("parallel_tool_calls", "Models call no tools"));
  table.push_back(ignored_field("service_tier", "`priority` orders jobs"));
  table.push_back(ignored_field("prompt_cache_key", "Beginnings of prompts are shared anyway"));
  table.push_back(ignored_field("safety_identifier", "`user` names who asks"));
  table.push_back(ignored_field("reasoning_effort", "Models do not reason before they answer"));
  table.push_back(ignored_field("verbosity", "See `max_completion_tokens`"));
  return table;
}

// The body as that of a completion.
Parsed<json> completion_of(const json& body, const Models& models, const ChatTemplate& chat) {
  const Parsed<std::vector<ChatMessage>> messages = read_messages(body.at("messages"), "messages");
  if (!messages.ok()) return messages.error();
  json out;
  for (const FieldInfo& field : completion_fields()) {
    const auto found = body.find(field.name);
    if (found != body.end() && (is_of_chats(field.name) || field.name == "stop" || field.name == "user")) {
      out[std::string(field.name)] = *found;
    }
  }
  out["prompt"] = chat.render(messages.value());
  add_template_stops(chat, out);
  const bool logprobs = find_field<bool>(body, "logprobs").value_or(false);
  if (has_field(body, "top_logprobs") && !logprobs) {
    return invalid_value("top_logprobs", "top_logprobs is only allowed with logprobs");
  }
  if (logprobs) out["logprobs"] = find_field<int>(body, "top_logprobs").value_or(0);
  const auto tokens = find_field<int64_t>(body, "max_completion_tokens"), old = find_field<int64_t>(body, "max_tokens");
  if (tokens && old && *tokens != *old) {
    return invalid_value("max_tokens", "max_tokens and max_completion_tokens are the same and have different values");
  }
  if (tokens || old) {
    out["max_tokens"] = tokens ? *tokens : *old;
    return out;
  }
  if (auto error = add_room_for_output(out, models)) return *error;
  return out;
}

ordered_json token_json(const CompletionRequest& request, TokenId id, float logprob) {
  ordered_json bytes;
  if (const std::string_view known = request.model.text->bpe.token_bytes(id); !known.empty()) {
    bytes = ordered_json::array();
    for (const char c : known) bytes.push_back(static_cast<uint8_t>(c));
  }
  return {{"token", request.tokens_as_ids ? TokenTexts::id_text(id) : request.model.texts->text(id)},
          {"logprob", json_logprob(logprob)},
          {"bytes", std::move(bytes)}};
}

// Everything of the choice but its text and index.
ordered_json facts_of_chat(const CompletionRequest& request, size_t prompt, const protocol::JobResult& result,
                           const Output& output) {
  ordered_json facts = choice_facts(request, prompt, result, output);
  if (request.logprobs) facts["logprobs"] = chat_logprobs_json(request, output);
  return facts;
}

class ChatForm final : public ChunkForm {
 public:
  explicit ChatForm(const CompletionRequest& request) : ChunkForm(request, "chat.completion.chunk") {}

  std::string begin() override {
    std::string frames;
    for (size_t i = 0; i < request().num_choices(); ++i) {
      frames += delta(static_cast<int>(i), R"({"role":"assistant","content":""})");
    }
    return frames;
  }
  std::string text(int choice, std::string_view text) override {
    return delta(choice, "{\"content\":" + json_string(text) + "}");
  }
  std::string last(const LastPiece& piece) override {
    ordered_json choice{{"index", piece.choice}, {"delta", ordered_json::object()}};
    if (!piece.text.empty()) choice["delta"]["content"] = piece.text;
    choice.update(facts_of_chat(request(), piece.prompt, piece.result, piece.output));
    return chunk(json_text(choice), true);
  }

 private:
  std::string delta(int choice, const std::string& delta) const {
    return chunk(
        "{\"index\":" + std::to_string(choice) + ",\"delta\":" + delta + ",\"logprobs\":null,\"finish_reason\":null}",
        false);
  }
};

}  // namespace

const FieldTable& chat_own_fields() {
  static const FieldTable kTable = fields_of_chats();
  return kTable;
}

const FieldTable& chat_fields() {
  static const FieldTable kTable = with_completion_fields(chat_own_fields(), is_of_chats);
  return kTable;
}

Parsed<CompletionRequest> parse_chat(std::string_view body, const Models& models, const RequestContext& context) {
  const Parsed<json> parsed = parse_body(body);
  if (!parsed.ok()) return parsed.error();
  if (auto error = need_template(context.chat, "messages")) return *error;
  if (auto error = check_fields(parsed.value(), chat_fields())) return *error;
  if (!has_field(parsed.value(), "messages")) {
    return invalid_value("messages", "messages is null, expected a list of messages");
  }
  const Parsed<json> completion = completion_of(parsed.value(), models, *context.chat);
  Parsed<CompletionRequest> request =
      completion.ok() ? parse_completion(completion.value().dump(), models, context) : completion.error();
  if (!request.ok()) {
    ApiError error = request.error();
    if (error.param == "prompt") error.param = "messages";
    return error;
  }
  CompletionRequest made = std::move(request).value();
  made.id = "chat" + made.id;
  return made;
}

ordered_json chat_logprobs_json(const CompletionRequest& request, const Output& output) {
  if (output.logprobs.size() != output.ids.size()) return nullptr;  // hypotheses have one sum for all their ids
  ordered_json content = ordered_json::array();
  for (size_t i = 0; i < output.ids.size(); ++i) {
    ordered_json entry = token_json(request, output.ids[i], output.logprobs[i]);
    ordered_json& top = entry["top_logprobs"] = ordered_json::array();
    if (i < output.best.size()) {
      for (const sampling::TokenLogprob& best : output.best[i]) {
        top.push_back(token_json(request, best.id, best.logprob));
      }
    }
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

std::string chat_body(const CompletionRequest& request, const CompletionAnswer& answer) {
  ordered_json choices = ordered_json::array();
  for (const CompletionAnswer::Choice& choice : answer.choices()) {
    ordered_json object{{"index", choices.size()},
                        {"message", {{"role", "assistant"}, {"content", choice.text}, {"refusal", nullptr}}}};
    object.update(facts_of_chat(request, choice.prompt, *choice.result, choice.output));
    choices.push_back(std::move(object));
  }
  const TokenUsage used = answer.usage();
  ordered_json body{{"id", request.id},
                    {"object", "chat.completion"},
                    {"created", request.created},
                    {"model", request.model.name},
                    {"choices", std::move(choices)},
                    {"usage", usage_json(used.prompt_tokens, used.completion_tokens)}};
  if (!request.model.fingerprint.empty()) body["system_fingerprint"] = request.model.fingerprint;
  if (request.return_metrics && request.num_jobs() == 1) {
    body["metrics"] = metrics_json(*answer.choices().front().result);
  }
  return json_text(body);
}

std::unique_ptr<StreamForm> chat_form(const CompletionRequest& request) { return std::make_unique<ChatForm>(request); }

}  // namespace optserve::http_api
