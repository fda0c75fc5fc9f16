#include "http_api/metaseq/metaseq_request.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/limits.h"
#include "client/choices.h"
#include "http_api/openai/completion_choice.h"
#include "http_api/openai/json_text.h"
#include "tokenizer/bpe.h"

namespace optserve::http_api {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using enum FieldKind;

// Fields that only have another name in a request of OpenAI's form.
constexpr std::array<std::pair<std::string_view, std::string_view>, 11> kSameMeaning = {{
    {"model", "model"},
    {"max_tokens", "max_tokens"},
    {"min_tokens", "min_tokens"},
    {"temperature", "temperature"},
    {"n", "n"},
    {"echo", "echo"},
    {"seed", "seed"},
    {"alpha_presence", "presence_penalty"},
    {"alpha_frequency", "frequency_penalty"},
    {"alpha_presence_src", "prompt_presence_penalty"},
    {"alpha_frequency_src", "prompt_frequency_penalty"},
}};

FieldInfo number(std::string_view name, std::string_view fallback, double min, double max, std::string_view help) {
  return {.name = name, .kind = kNumber, .fallback = fallback, .help = help, .min = min, .max = max};
}
FieldInfo whole(std::string_view name, std::string_view fallback, double min, double max, std::string_view help) {
  return {.name = name, .kind = kInteger, .fallback = fallback, .help = help, .min = min, .max = max};
}

// Removes `</s>` at both ends of the ids and puts one in front.
json with_one_leading_id(const json& ids) {
  std::vector<TokenId> clean = ids.get<std::vector<TokenId>>();
  while (!clean.empty() && clean.back() == tokenizer::kEndId) clean.pop_back();
  const auto first = std::ranges::find_if(clean, [](TokenId id) { return id != tokenizer::kEndId; });
  clean.erase(clean.begin(), first);
  clean.insert(clean.begin(), tokenizer::kEndId);
  return clean;
}

json clean_prompt(const json& prompt) {
  if (!prompt.is_array() || prompt.front().is_string()) return prompt;
  if (prompt.front().is_number()) return with_one_leading_id(prompt);
  json clean = json::array();
  for (const json& ids : prompt) clean.push_back(with_one_leading_id(ids));
  return clean;
}

// Metaseq's factual-nucleus decay starts again at the end of a sentence.
std::optional<ApiError> add_reset_ids(CompletionRequest& request) {
  if (auto error = request.model.need_text("lambda_decay", "lambda_decay")) return error;
  for (const std::string_view end : {".", "?", "!"}) {
    std::vector<TokenId> ids;
    check(request.model.text->encoder.encode(end, ids).ok(), "a full stop is text");
    if (ids.size() == 1) request.job.rules.top_p_reset_ids.push_back(ids.front());
  }
  return std::nullopt;
}

// The body as a request of OpenAI's form.
Parsed<json> translated(const json& body, const Models& models) {
  json out{{"profile", "metaseq"}, {"include_stop_str_in_output", true}};
  for (const auto& [from, to] : kSameMeaning) {
    if (has_field(body, from)) out[std::string(to)] = body.at(std::string(from));
  }
  const json prompt = has_field(body, "prompt") ? clean_prompt(body.at("prompt")) : json();
  if (prompt.is_null()) return invalid_value("prompt", "prompt is null, expected a text or token ids");
  out["prompt"] = prompt;
  out["best_of"] = std::max(find_field<int>(body, "best_of").value_or(1), find_field<int>(body, "n").value_or(1));
  out["stop"] = read_strings(body, "stop");
  const Parsed<Model> model = models.find(find_field<std::string>(body, "model").value_or(""));
  if (!model.ok()) return model.error();
  const int logprobs = find_field<int>(body, "logprobs").value_or(0);
  if (logprobs > 0 || model.value().text != nullptr) out["logprobs"] = logprobs;
  const double top_p = find_field<double>(body, "top_p").value_or(1);
  if (top_p > 0) {
    out["top_p"] = top_p;
  } else {
    out["temperature"] = 0;
  }
  const double decay = find_field<double>(body, "lambda_decay").value_or(-1);
  if (decay > 0) {
    out["top_p_decay"] = decay;
    out["top_p_min"] = find_field<double>(body, "omega_bound").value_or(0.3);
    out["top_p_decay_after"] = 1;
  }
  if (!has_field(body, "max_tokens")) {
    const Parsed<int64_t> tokens = room_for_output(prompt, model.value());
    if (!tokens.ok()) return tokens.error();
    out["max_tokens"] = tokens.value();
  }
  return out;
}

ordered_json logprobs_of(const CompletionRequest& request, const CompletionAnswer::Choice& choice) {
  ordered_json lists = logprobs_json(request, choice.prompt, *choice.result, choice.output);
  if (choice.output.finish_reason == sampling::FinishReason::kEndOfText) {
    // Metaseq does not list the token that ends the text.
    for (ordered_json& list : lists) list.erase(list.size() - 1);
  }
  if (request.logprobs == 0) lists["top_logprobs"] = nullptr;
  lists["finish_reason"] = finish_word(choice.output.finish_reason);
  return lists;
}

}  // namespace

const FieldTable& metaseq_fields() {
  constexpr double kTokens = limits::kContextTokensMax;
  static const FieldTable kTable{
      {.name = "prompt",
       .kind = kPrompt,
       .help = "One prompt or several; ids get one leading `</s>`, however many they have",
       .required = true},
      whole("max_tokens", "null", 0, kTokens, "Most tokens of output; by default as many as fit"),
      whole("min_tokens", "0", 0, kTokens, "The output does not end before this many tokens"),
      number("temperature", "1", 0, 2, "0: always the best token"),
      number("top_p", "1", 0, 1, "0: always the best token"),
      whole("n", "1", 1, client::kChoicesMax, "Choices for each prompt"),
      whole("best_of", "null", 1, client::kChoicesMax, "Outputs that the choices are taken from; at least `n`"),
      whole("logprobs", "0", 0, limits::kTopLogprobsMax, "Number of best tokens at each place"),
      {.name = "echo", .kind = kBoolean, .fallback = "false", .help = "The text begins with the prompt"},
      {.name = "stop", .kind = kStringOrList, .help = "Up to 16 texts; the one that ends the output is part of it"},
      number("omega_bound", "0.3", 0, 1, "With `lambda_decay`: `top_p` does not decay below"),
      number("lambda_decay", "-1", -1, 1, "`top_p` is multiplied by it after each token of a sentence; -1: not"),
      number("alpha_presence", "0", -2, 2, "Subtracted once for each id of the output; below 0 nothing"),
      number("alpha_frequency", "0", -2, 2, "Subtracted for each occurrence in the output; below 0 nothing"),
      number("alpha_presence_src", "0", -2, 2, "Subtracted once for each id of the prompt; below 0 nothing"),
      number("alpha_frequency_src", "0", -2, 2, "Subtracted for each occurrence in the prompt; below 0 nothing"),
      {.name = "alpha_src_penalty_end_idx",
       .kind = kAny,
       .fallback = "-1",
       .help = "penalties count the whole prompt",
       .use = FieldUse::kRefused,
       .neutral = "-1"},
      {.name = "model", .kind = kString, .help = "Not Metaseq's: the model, where several are served"},
      {.name = "seed", .kind = kSeed, .help = "Not Metaseq's: the same request with the same seed gives the same"}};
  return kTable;
}

Parsed<CompletionRequest> parse_metaseq(std::string_view body, const Models& models, const RequestContext& context) {
  const Parsed<json> parsed = parse_body(body);
  if (!parsed.ok()) return parsed.error();
  if (auto error = check_fields(parsed.value(), metaseq_fields())) return *error;
  const Parsed<json> request = translated(parsed.value(), models);
  if (!request.ok()) return request.error();
  Parsed<CompletionRequest> completion = parse_completion(request.value().dump(), models, context);
  if (!completion.ok() || completion.value().job.sampling.top_p_decay_after == 0) return completion;
  if (auto error = add_reset_ids(completion.value())) return *error;
  return completion;
}

std::string metaseq_body(const CompletionRequest& request, const CompletionAnswer& answer) {
  ordered_json choices = ordered_json::array();
  for (const CompletionAnswer::Choice& choice : answer.choices()) {
    choices.push_back({{"text", choice.text},
                       {"logprobs", request.logprobs ? logprobs_of(request, choice) : ordered_json()},
                       {"index", choices.size()},
                       {"finish_reason", finish_word(choice.output.finish_reason)}});
  }
  return json_text({{"id", request.id},
                    {"object", "text_completion"},
                    {"created", request.created},
                    {"model", request.model.name},
                    {"choices", std::move(choices)}});
}

}  // namespace optserve::http_api
