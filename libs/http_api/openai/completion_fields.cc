#include "http_api/openai/completion_fields.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <type_traits>

#include "base/input_check.h"
#include "base/limits.h"
#include "client/choices.h"
#include "sampling/sampling_params.h"

namespace optserve::http_api {
namespace {

using enum FieldKind;

// Sampling parameters that have a different name in requests, and such fields of JobSpec.
struct Renamed {
  std::string_view job_field, request_field;
};
constexpr std::array kRenamed = {Renamed{"min_new_tokens", "min_tokens"},
                                 Renamed{"max_new_tokens", "max_tokens"},
                                 Renamed{"beam_length_penalty", "length_penalty"},
                                 Renamed{"beam_early_stopping", "early_stopping"},
                                 Renamed{"prompt_ids", "prompt"},
                                 Renamed{"stop_ids", "stop_token_ids"},
                                 Renamed{"allowed_ids", "allowed_token_ids"},
                                 Renamed{"ttl_ms", "deadline_ms"},
                                 Renamed{"queue_ms", "queue_timeout_ms"},
                                 Renamed{"include_stop", "include_stop_str_in_output"},
                                 Renamed{"key", "idempotency_key"},
                                 Renamed{"tenant", "user"}};

FieldInfo flag(std::string_view name, std::string_view fallback, std::string_view help) {
  return {.name = name, .kind = kBoolean, .fallback = fallback, .help = help};
}
FieldInfo integer(std::string_view name, std::string_view fallback, double min, double max, std::string_view help) {
  return {.name = name, .kind = kInteger, .fallback = fallback, .help = help, .min = min, .max = max};
}
FieldInfo list(std::string_view name, FieldKind kind, std::string_view help) {
  return {.name = name, .kind = kind, .help = help};
}

FieldTable stream_options() {
  return {flag("include_usage", "false", "A last chunk without choices has the `usage`"),
          ignored_field("continuous_usage_stats", "`usage` comes in the last chunk only"),
          ignored_field("include_obfuscation", "Chunks are never padded")};
}

void add_openai_fields(FieldTable& table) {
  constexpr double kChoices = client::kChoicesMax;
  table.push_back({.name = "model",
                   .kind = kString,
                   .help = "Name of the model (`GET /v1/models`); may be left out where only one is served"});
  table.push_back({.name = "prompt",
                   .kind = kPrompt,
                   .help = "One prompt or several; texts get the model's leading `</s>`, ids are taken as they are; "
                           "null and \"\" mean the leading id alone",
                   .required = true});
  table.push_back(
      integer("best_of", "null", 1, kChoices,
              "Outputs made for each prompt; the `n` with the highest log-probability per token come back"));
  table.push_back(flag("echo", "false", "The text, and its log-probabilities, begin with the prompt"));
  table.push_back(list("logit_bias", kBiases, "Added to the logits of these ids; at -100 an id is not drawn"));
  table.push_back(integer("logprobs", "null", 0, limits::kTopLogprobsMax,
                          "Log-probability of each token, and of this many best ones at its place"));
  table.push_back(integer("max_tokens", "16", 0, limits::kContextTokensMax,
                          "Most tokens of output; 0, with `echo`, only scores the prompt"));
  table.push_back(integer("n", "1", 1, kChoices, "Choices for each prompt"));
  table.push_back({.name = "seed", .kind = kSeed, .help = "The same request with the same seed gives the same output"});
  table.push_back(list("stop", kStringOrList, "Up to 16 texts of 1 to 64 bytes; each ends the output"));
  table.push_back(flag("stream", "false", "Answer with server-sent events"));
  table.push_back(
      {.name = "stream_options", .kind = kObject, .help = "Only with `stream`", .members = stream_options()});
  table.push_back(refused_field("suffix", "\"\"", "OPT writes after a prompt, not into a text"));
  table.push_back({.name = "user",
                   .kind = kString,
                   .help = "Who shares the queue fairly with others, where the API key does not say it"});
}

void add_vllm_fields(FieldTable& table) {
  table.push_back(flag("add_special_tokens", "true", "Texts get the model's leading `</s>`"));
  table.push_back(list("allowed_token_ids", kIdList, "Only these ids are drawn"));
  table.push_back(list("bad_words", kStringList, "Up to 64 texts that are not written"));
  table.push_back(flag("include_stop_str_in_output", "false", "What ended the output is part of its text"));
  table.push_back(
      integer("min_tokens", "0", 0, limits::kContextTokensMax, "The output does not end before this many tokens"));
  table.push_back(integer("priority", "0", 0, limits::kPriorityMax, "Jobs of higher priority start first"));
  table.push_back(integer("prompt_logprobs", "null", 0, limits::kTopLogprobsMax,
                          "Each choice has `prompt_logprobs`: of the prompt's tokens, and this many best ones"));
  table.push_back({.name = "request_id", .kind = kString, .help = "The answer's `id` is `cmpl-` and this"});
  table.push_back(flag("return_token_ids", "false", "Each choice has `token_ids` and `prompt_token_ids`"));
  table.push_back(flag("return_tokens_as_token_ids", "false", "`logprobs` names tokens as `token_id:N`"));
  table.push_back(list("stop_token_ids", kIdList, "Up to 16 ids that end the output"));
  table.push_back(integer("truncate_prompt_tokens", "null", -1, limits::kContextTokensMax,
                          "Of longer prompts only the last tokens are kept, the leading `</s>` included; -1: as many "
                          "as fit beside `max_tokens`"));
  table.push_back(flag("use_beam_search", "false", "Search the likeliest outputs; `beam_width` is `n` if not given"));
  table.push_back(ignored_field("cache_salt", "Caches of prompts give nothing away but time"));
  table.push_back(ignored_field("session_id", "Any worker group may serve any request"));
  table.push_back(ignored_field("stream_interval", "Text is sent as it comes"));
  table.push_back(ignored_field("return_weight_versions", "`system_fingerprint` names the weights"));
  table.push_back(ignored_field("spaces_between_special_tokens", "Special tokens are not part of texts"));
  table.push_back(ignored_field("metadata", "Nothing is kept of it"));
  table.push_back(ignored_field("store", "Results are kept for a while in any case"));
  table.push_back(refused_field("skip_special_tokens", "true", "special tokens are never part of texts"));
  table.push_back(refused_field("truncation_side", "\"left\"", "prompts are cut at their beginning"));
  table.push_back(refused_field("prompt_embeds", "", "prompts are texts or ids"));
  table.push_back(refused_field("response_format", R"({"type":"text"})", "outputs are plain text"));
  table.push_back(refused_field("structured_outputs", "", "outputs are plain text"));
  table.push_back(refused_field("logprob_token_ids", "[]", "`logprobs` gives the best ids"));
  table.push_back(refused_field("repetition_detection", "", "see `repetition_penalty`"));
  table.push_back(refused_field("watermarking", "false", "outputs are not marked"));
  table.push_back(refused_field("vllm_xargs", "{}", "there are no extensions"));
}

void add_own_fields(FieldTable& table) {
  const double ttl = limits::kJobTtlMsMax;
  table.push_back(flag("background", "false",
                       "The answer is 202 with the ids of the jobs, and a client that goes away cancels nothing"));
  table.push_back(
      integer("deadline_ms", "null", limits::kJobTtlMsMin, ttl,
              "Time after which the request fails; by default what the client says that it waits, or 600 s"));
  table.push_back({.name = "idempotency_key",
                   .kind = kString,
                   .help = "The same request with the same key runs once; also as header `Idempotency-Key`"});
  table.push_back(integer("queue_timeout_ms", "0", 0, ttl, "Time within which the request must start; 0: any"));
  table.push_back(flag("return_metrics", "false", "With one choice: how long its stages took"));
}

std::string_view request_field_of_sampling(std::string_view parameter) {
  // These are read by hand: their values differ between requests and jobs.
  for (const std::string_view own : {"seed", "logprobs", "profile", "min_new_tokens"}) {
    if (parameter == own) return {};
  }
  return request_name_of(parameter);
}

template <class T>
FieldInfo sampling_field(const sampling::ParameterInfo& info, T value) {
  FieldInfo field{.name = request_field_of_sampling(info.name), .help = info.help};
  if constexpr (std::is_same_v<T, bool>) {
    field.kind = kBoolean;
    field.fallback = value ? "true" : "false";
  } else {
    field.kind = std::is_floating_point_v<T> ? kNumber : kInteger;
    field.fallback = value == T{1} ? "1" : "0";
    field.min = field.name == "top_k" ? -1 : info.min;  // vLLM's -1 also means all
    field.max = info.max;
    field.min_excluded = info.min_excluded;
  }
  return field;
}

void add_sampling_fields(FieldTable& table) {
  constexpr sampling::SamplingParams kDefaults;
  sampling::for_each_parameter(kDefaults, [&](const sampling::ParameterInfo& info, auto value) {
    if constexpr (!std::is_enum_v<decltype(value)>) {
      if (!request_field_of_sampling(info.name).empty()) table.push_back(sampling_field(info, value));
    }
  });
  table.push_back({.name = "profile",
                   .kind = kString,
                   .fallback = "\"default\"",
                   .help = "Whose order and formulas sampling follows: default, fastertransformer or metaseq"});
}

}  // namespace

const FieldTable& completion_fields() {
  static const FieldTable kTable = [] {
    FieldTable table;
    add_openai_fields(table);
    add_sampling_fields(table);
    add_vllm_fields(table);
    add_own_fields(table);
    return table;
  }();
  return kTable;
}

FieldTable with_completion_fields(FieldTable own, bool (*is_same)(std::string_view completion_field)) {
  std::ranges::copy_if(completion_fields(), std::back_inserter(own), is_same, &FieldInfo::name);
  return own;
}

std::string_view request_name_of(std::string_view job_field) {
  const auto found = std::ranges::find(kRenamed, job_field, &Renamed::job_field);
  return found == kRenamed.end() ? job_field : found->request_field;
}

}  // namespace optserve::http_api
