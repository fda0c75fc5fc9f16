#include "http_api/ollama/ollama_request.h"

#include <algorithm>
#include <array>

#include "base/limits.h"
#include "base/utc_time.h"
#include "http_api/chat/chat_messages.h"
#include "http_api/openai/json_text.h"

namespace optserve::http_api {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using enum FieldKind;

// Options that only have another name in a request of OpenAI's form.
constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kSameOptions = {{
    {"temperature", "temperature"},
    {"top_k", "top_k"},
    {"top_p", "top_p"},
    {"min_p", "min_p"},
    {"typical_p", "typical_p"},
    {"repeat_penalty", "repetition_penalty"},
    {"presence_penalty", "presence_penalty"},
    {"frequency_penalty", "frequency_penalty"},
    {"seed", "seed"},
    {"stop", "stop"},
}};
// Ollama's defaults for requests that do not set these.
constexpr double kTemperature = 0.8, kTopP = 0.9;
constexpr int kTopK = 40;

FieldInfo option(std::string_view name, std::string_view fallback, double min, double max, std::string_view help) {
  return {.name = name, .kind = kNumber, .fallback = fallback, .help = help, .min = min, .max = max};
}
FieldInfo whole_option(std::string_view name, std::string_view fallback, double min, double max,
                       std::string_view help) {
  return {.name = name, .kind = kInteger, .fallback = fallback, .help = help, .min = min, .max = max};
}
FieldInfo positive_option(std::string_view name, std::string_view fallback, double max, std::string_view help) {
  FieldInfo field = option(name, fallback, 0, max, help);
  field.min_excluded = true;
  return field;
}

FieldTable option_fields() {
  FieldTable table{
      whole_option("num_predict", "-1", -2, limits::kContextTokensMax, "Most tokens of output; below 0 as many as fit"),
      option("temperature", "0.8", 0, 2, "0: always the best token"),
      whole_option("top_k", "40", 0, limits::kVocabularyMax, "Draw from the k best tokens; 0: all"),
      positive_option("top_p", "0.9", 1, "Draw from the fewest best tokens whose probabilities add up to this"),
      option("min_p", "0", 0, 1, "Leave out tokens less likely than this share of the best token's probability"),
      positive_option("typical_p", "1", 1, "As `typical_p` of completions"),
      positive_option("repeat_penalty", "1", 10, "As `repetition_penalty` of completions; it counts the whole text"),
      option("presence_penalty", "0", -2, 2, "As that of completions"),
      option("frequency_penalty", "0", -2, 2, "As that of completions"),
      {.name = "seed", .kind = kSeed, .help = "The same request with the same seed gives the same output"},
      {.name = "stop", .kind = kStringOrList, .help = "Up to 16 texts that end the output"}};
  for (const std::string_view name : {"num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep",
                                      "use_mmap", "use_mlock", "low_vram", "numa", "vocab_only", "f16_kv"}) {
    table.push_back(ignored_field(name, "How a model runs is its workers' matter"));
  }
  table.push_back(ignored_field("repeat_last_n", "Penalties count the whole text"));
  table.push_back(ignored_field("penalize_newline", "Penalties count every token"));
  table.push_back(refused_field("mirostat", "0", "see `typical_p`"));
  table.push_back(ignored_field("mirostat_eta", "Of `mirostat`"));
  table.push_back(ignored_field("mirostat_tau", "Of `mirostat`"));
  table.push_back(refused_field("tfs_z", "1", "see `typical_p`"));
  return table;
}

void add_common_fields(FieldTable& table) {
  table.push_back({.name = "stream", .kind = kBoolean, .fallback = "true", .help = "Answer in pieces, a line each"});
  table.push_back({.name = "options", .kind = kObject, .help = "How to draw", .members = option_fields()});
  table.push_back(ignored_field("keep_alive", "Models stay loaded"));
  table.push_back(refused_field("format", "\"\"", "outputs are plain text"));
  table.push_back(refused_field("think", "false", "models do not reason before they answer"));
  table.push_back(refused_field("logprobs", "false", "see /v1/completions"));
  table.push_back(refused_field("top_logprobs", "0", "see /v1/completions"));
}

FieldInfo model_field() {
  return {.name = "model",
          .kind = kString,
          .help = "Name of the model, with or without `:latest`; may be left out where only one is served"};
}

std::string model_of(const json& body, std::string_view field = "model") {
  std::string name = find_field<std::string>(body, field).value_or("");
  constexpr std::string_view kLatest = ":latest";
  if (name.ends_with(kLatest)) name.resize(name.size() - kLatest.size());
  return name;
}

// The body of a completion without its prompt.
json completion_without_prompt(const json& body) {
  json out{{"model", model_of(body)},
           {"stream", find_field<bool>(body, "stream").value_or(true)},
           {"temperature", kTemperature},
           {"top_k", kTopK},
           {"top_p", kTopP}};
  if (!has_field(body, "options")) return out;
  const json& options = body.at("options");
  for (const auto& [from, to] : kSameOptions) {
    if (has_field(options, from)) out[std::string(to)] = options.at(std::string(from));
  }
  const auto tokens = find_field<int64_t>(options, "num_predict").value_or(-1);
  if (tokens >= 0) out["max_tokens"] = tokens;
  return out;
}

// Replaces names of fields in the error by those that the client knows.
ApiError in_ollamas_words(ApiError error) {
  if (error.param == "max_tokens") error.param = "options.num_predict";
  for (const auto& [from, to] : kSameOptions) {
    if (error.param == to) error.param = "options." + std::string(from);
  }
  return error;
}

Parsed<CompletionRequest> finish(json completion, const Models& models, const RequestContext& context) {
  if (!completion.contains("max_tokens")) {
    if (auto error = add_room_for_output(completion, models)) return in_ollamas_words(*error);
  }
  Parsed<CompletionRequest> request = parse_completion(completion.dump(), models, context);
  if (!request.ok()) return in_ollamas_words(request.error());
  return request;
}

ordered_json model_details() {
  return {{"parent_model", ""},   {"format", "safetensors"},
          {"family", "opt"},      {"families", ordered_json::array({"opt"})},
          {"parameter_size", ""}, {"quantization_level", ""}};
}

// One object of an answer, with `text` where its kind has it.
ordered_json answer_object(const CompletionRequest& request, bool is_chat, std::string_view text) {
  ordered_json object{{"model", request.model.name}, {"created_at", rfc3339_text(request.created)}};
  if (is_chat) {
    object["message"] = {{"role", "assistant"}, {"content", text}};
  } else {
    object["response"] = text;
  }
  return object;
}

int64_t nanoseconds_of(int64_t milliseconds) { return std::max<int64_t>(milliseconds, 0) * 1'000'000; }

void add_end(ordered_json& object, const protocol::JobResult& result, const Output& output) {
  const protocol::Timings& times = result.timings;
  object["done"] = true;
  object["done_reason"] = finish_word(output.finish_reason);
  object["total_duration"] = nanoseconds_of(times.total_ms);
  object["load_duration"] = 0;
  object["prompt_eval_count"] = result.prompt_tokens;
  object["prompt_eval_duration"] = nanoseconds_of(times.first_token_ms - times.encode_ms - times.queue_ms);
  object["eval_count"] = output.ids.size();
  object["eval_duration"] = nanoseconds_of(times.total_ms - times.first_token_ms);
}

std::string body_of(const CompletionRequest& request, const CompletionAnswer& answer, bool is_chat) {
  const std::vector<CompletionAnswer::Choice> choices = answer.choices();
  ordered_json object = answer_object(request, is_chat, choices.front().text);
  add_end(object, *choices.front().result, choices.front().output);
  return json_text(object);
}

class LineForm final : public StreamForm {
 public:
  LineForm(const CompletionRequest& request, bool is_chat) : request_(&request), is_chat_(is_chat) {}

  std::string text(int, std::string_view text) override {
    ordered_json object = answer_object(*request_, is_chat_, text);
    object["done"] = false;
    return json_text(object) + "\n";
  }
  std::string last(const LastPiece& piece) override {
    const std::string rest = piece.text.empty() ? "" : text(0, piece.text);
    ordered_json object = answer_object(*request_, is_chat_, "");
    add_end(object, piece.result, piece.output);
    return rest + json_text(object) + "\n";
  }
  std::string end(const TokenUsage&, const protocol::JobResult&) override { return ""; }
  std::string error(const ApiError& error) override { return ollama_error_body(error) + "\n"; }
  std::string_view keep_alive() const override { return ""; }  // clients read every line as JSON

 private:
  const CompletionRequest* request_;
  bool is_chat_;
};

}  // namespace

const FieldTable& ollama_generate_fields() {
  static const FieldTable kTable = [] {
    FieldTable table{model_field(),
                     {.name = "prompt", .kind = kString, .fallback = "\"\"", .help = "The text"},
                     {.name = "system", .kind = kString, .fallback = "\"\"", .help = "What comes before it in a chat"},
                     {.name = "raw",
                      .kind = kBoolean,
                      .fallback = "false",
                      .help = "Continue the text as it is, without the template for chats"},
                     refused_field("suffix", "\"\"", "OPT writes after a prompt, not into a text"),
                     refused_field("images", "[]", "models read texts"),
                     refused_field("template", "\"\"", "the gateway has one (--chat-template)"),
                     refused_field("context", "[]", "send the whole text")};
    add_common_fields(table);
    return table;
  }();
  return kTable;
}

const FieldTable& ollama_chat_fields() {
  static const FieldTable kTable = [] {
    FieldTable table{model_field(),
                     {.name = "messages",
                      .kind = kMessages,
                      .help = "The conversation, as that of /v1/chat/completions",
                      .required = true},
                     refused_field("tools", "[]", "models call no tools")};
    add_common_fields(table);
    return table;
  }();
  return kTable;
}

Parsed<CompletionRequest> parse_ollama_generate(std::string_view text, const Models& models,
                                                const RequestContext& context) {
  const Parsed<json> parsed = parse_body(text);
  if (!parsed.ok()) return parsed.error();
  const json& body = parsed.value();
  if (auto error = check_fields(body, ollama_generate_fields())) return *error;
  const std::string prompt = find_field<std::string>(body, "prompt").value_or(""),
                    system = find_field<std::string>(body, "system").value_or("");
  json out = completion_without_prompt(body);
  const bool is_raw = find_field<bool>(body, "raw").value_or(false);
  if (is_raw && !system.empty()) return invalid_value("system", "system is not part of a raw prompt");
  if (!system.empty()) {
    if (auto error = need_template(context.chat, "system")) return *error;
  }
  if (is_raw || context.chat == nullptr) {
    out["prompt"] = prompt;
    return finish(std::move(out), models, context);
  }
  std::vector<ChatMessage> messages;
  if (!system.empty()) messages.push_back({ChatRole::kSystem, system});
  messages.push_back({ChatRole::kUser, prompt});
  out["prompt"] = context.chat->render(messages);
  add_template_stops(*context.chat, out);
  return finish(std::move(out), models, context);
}

Parsed<CompletionRequest> parse_ollama_chat(std::string_view text, const Models& models,
                                            const RequestContext& context) {
  const Parsed<json> parsed = parse_body(text);
  if (!parsed.ok()) return parsed.error();
  const json& body = parsed.value();
  if (auto error = need_template(context.chat, "messages")) return *error;
  if (auto error = check_fields(body, ollama_chat_fields())) return *error;
  if (!has_field(body, "messages")) return invalid_value("messages", "messages is null, expected a list of messages");
  const Parsed<std::vector<ChatMessage>> messages = read_messages(body.at("messages"), "messages");
  if (!messages.ok()) return messages.error();
  json out = completion_without_prompt(body);
  out["prompt"] = context.chat->render(messages.value());
  add_template_stops(*context.chat, out);
  return finish(std::move(out), models, context);
}

std::string ollama_generate_body(const CompletionRequest& request, const CompletionAnswer& answer) {
  return body_of(request, answer, false);
}
std::string ollama_chat_body(const CompletionRequest& request, const CompletionAnswer& answer) {
  return body_of(request, answer, true);
}
std::unique_ptr<StreamForm> ollama_generate_form(const CompletionRequest& request) {
  return std::make_unique<LineForm>(request, false);
}
std::unique_ptr<StreamForm> ollama_chat_form(const CompletionRequest& request) {
  return std::make_unique<LineForm>(request, true);
}

std::string ollama_error_body(const ApiError& error) {
  // Ollama's clients show only this text, so it must name the field.
  const bool names_field = error.param.empty() || error.message.starts_with(error.param);
  return json_text({{"error", names_field ? error.message : error.param + ": " + error.message}});
}

const FieldTable& ollama_show_fields() {
  static const FieldTable kTable = [] {
    FieldTable table{model_field()};
    table.push_back({.name = "name", .kind = kString, .help = "The same, as older clients call it"});
    table.push_back({.name = "verbose", .kind = kBoolean, .fallback = "false", .help = "Ignored. All is told"});
    return table;
  }();
  return kTable;
}

Parsed<std::string> ollama_show_body(std::string_view text, const Models& models, const ChatTemplate* chat) {
  const Parsed<json> parsed = parse_body(text);
  if (!parsed.ok()) return parsed.error();
  const json& body = parsed.value();
  if (auto error = check_fields(body, ollama_show_fields())) return *error;
  const Parsed<Model> found = models.find(model_of(body, has_field(body, "model") ? "model" : "name"));
  if (!found.ok()) return found.error();
  const Model& model = found.value();
  ordered_json info{{"general.architecture", "opt"}, {"general.basename", model.name}};
  if (model.context > 0) info["opt.context_length"] = model.context;
  if (model.vocab > 0) info["opt.vocab_size"] = model.vocab;
  return json_text(
      {{"modelfile", ""},
       {"parameters", ""},
       {"template", chat == nullptr ? "{{ .Prompt }}" : chat->render({{ChatRole::kUser, "{{ .Prompt }}"}})},
       {"details", model_details()},
       {"model_info", std::move(info)},
       {"capabilities", ordered_json::array({"completion"})},
       {"modified_at", rfc3339_text(models.created())}});
}

std::string ollama_models_body(const Models& models, bool are_running, int64_t now_s) {
  constexpr int64_t kDay = 86'400;
  ordered_json list = ordered_json::array();
  for (const std::string& name : models.names()) {
    const Parsed<Model> found = models.find(name);
    if (!found.ok()) continue;
    const Model& model = found.value();
    ordered_json entry{{"name", name}, {"model", name}};
    if (!are_running) entry["modified_at"] = rfc3339_text(models.created());
    entry["size"] = 0;
    entry["digest"] = model.text != nullptr ? model.text->info.manifest_digest : "";
    entry["details"] = model_details();
    if (are_running) {
      entry["expires_at"] = rfc3339_text(now_s + kDay);
      entry["size_vram"] = 0;
      if (model.context > 0) entry["context_length"] = model.context;
    }
    list.push_back(std::move(entry));
  }
  return json_text({{"models", std::move(list)}});
}

}  // namespace optserve::http_api
