// The four forms of a prompt, as text or ids for the scheduler.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "http_api/openai/api_error.h"
#include "http_api/openai/models.h"

namespace optserve::http_api {

struct Prompt {
  std::string text;            // as it was sent; for ids, their decoded text if that is needed
  std::vector<TokenId> ids{};  // if not empty, these are sent to the scheduler instead of the text
};

struct PromptOptions {
  int64_t max_tokens = 0;  // of output, which must fit beside the prompt
  bool add_leading_id = true;
  std::optional<int64_t> keep_last{};  // keep only this many of the prompt's last tokens; -1: as many as fit
  bool needs_ids = false;
  bool needs_text = false;
};

// `value` is a checked FieldKind::kPrompt, or null for the model's leading id alone, like "". Texts become ids if the
// options need it or if they might be too long. Refuses ids outside the vocabulary and prompts that do not fit the
// context, as far as the gateway knows both.
Parsed<std::vector<Prompt>> read_prompts(const nlohmann::json& value, const Model& model, const PromptOptions& options);

// The maximum number of tokens that fit beside the longest prompt, at least 1, for requests that do not say how many
// they want. Needs the model's vocabulary.
Parsed<int64_t> room_for_output(const nlohmann::json& prompts, const Model& model);
// Sets `max_tokens` of a completion in this way, for its `prompt` and the model that it names.
std::optional<ApiError> add_room_for_output(nlohmann::json& completion, const Models& models);

// Number of prompts in a checked body.
size_t count_prompts(const nlohmann::json& body);

}  // namespace optserve::http_api
