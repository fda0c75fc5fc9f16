#include "http_api/openai/prompts.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/input_check.h"
#include "base/limits.h"
#include "http_api/openai/request_fields.h"
#include "tokenizer/bpe.h"

namespace optserve::http_api {
namespace {

using nlohmann::json;
using MaybeError = std::optional<ApiError>;

class PromptReader {
 public:
  PromptReader(const Model& model, const PromptOptions& options) : model_(model), options_(options) {}

  MaybeError add(const json& value) {
    if (value.is_array()) return add_ids(value.get<std::vector<TokenId>>());
    return add_text(value.is_null() ? std::string() : value.get<std::string>());
  }
  std::vector<Prompt> take() { return std::move(prompts_); }

 private:
  int64_t context() const {
    return model_.context > 0 ? model_.context : static_cast<int64_t>(limits::kContextTokensMax);
  }
  TokenId leading_id() const { return model_.text != nullptr ? model_.text->leading_id : tokenizer::kEndId; }

  MaybeError add_text(std::string text) {
    Prompt& prompt = prompts_.emplace_back();
    prompt.text = std::move(text);
    const bool may_be_too_long =
        static_cast<int64_t>(prompt.text.size()) + 1 + options_.max_tokens > context() && model_.text != nullptr;
    if (prompt.text.empty()) {
      if (options_.add_leading_id && leading_id() >= 0) prompt.ids = {leading_id()};
      if (prompt.ids.empty()) return invalid_value("prompt", "prompt is empty, and gets no first id");
      return finish(prompt);
    }
    if (!options_.needs_ids && !options_.keep_last && options_.add_leading_id && !may_be_too_long) return std::nullopt;
    if (MaybeError error = model_.need_text("prompt", "the token ids of a text")) return error;
    if (options_.add_leading_id && leading_id() >= 0) prompt.ids.push_back(leading_id());
    if (Status status = model_.text->encoder.encode(prompt.text, prompt.ids); !status.ok()) {
      return invalid_value("prompt", "prompt: " + status.refusal().message);
    }
    return finish(prompt);
  }

  MaybeError add_ids(std::vector<TokenId> ids) {
    Prompt& prompt = prompts_.emplace_back();
    prompt.ids = std::move(ids);
    const auto outside =
        std::ranges::find_if(prompt.ids, [this](TokenId id) { return model_.vocab > 0 && id >= model_.vocab; });
    if (outside != prompt.ids.end()) {
      return invalid_value("prompt", "prompt has the id " + std::to_string(*outside) + ", expected 0 to " +
                                         std::to_string(model_.vocab - 1));
    }
    if (options_.needs_text) {
      if (MaybeError error = model_.need_text("echo", "echo of token ids")) return error;
    }
    return finish(prompt);
  }

  // Truncates the prompt and checks that there is room for the output.
  MaybeError finish(Prompt& prompt) {
    bool is_cut = false;
    if (options_.keep_last) {
      const int64_t kept = *options_.keep_last < 0 ? context() - options_.max_tokens : *options_.keep_last;
      if (kept < 1) {
        return invalid_value("truncate_prompt_tokens", "truncate_prompt_tokens leaves " + std::to_string(kept) +
                                                           " tokens of the prompt, expected at least 1");
      }
      is_cut = keep_last(prompt.ids, static_cast<size_t>(kept));
    }
    if (static_cast<int64_t>(prompt.ids.size()) + options_.max_tokens > context()) {
      return context_overflow(static_cast<int32_t>(context()), prompt.ids.size(), options_.max_tokens);
    }
    // The text after truncation, or of ids that came without a text.
    if (options_.needs_text && (is_cut || prompt.text.empty()) && model_.text != nullptr) {
      prompt.text = model_.text->streamer.decode_text(prompt.ids);
    }
    return std::nullopt;
  }

  // Keeps a leading id, since the model was not trained on prompts without one.
  bool keep_last(std::vector<TokenId>& ids, size_t count) const {
    if (ids.size() <= count) return false;
    const bool leads = ids.front() == leading_id();
    const auto dropped = static_cast<std::ptrdiff_t>(ids.size() - count);
    ids.erase(ids.begin() + (leads ? 1 : 0), ids.begin() + dropped + (leads ? 1 : 0));
    return true;
  }

  const Model& model_;
  const PromptOptions& options_;
  std::vector<Prompt> prompts_;
};

bool is_one_prompt(const json& value) { return !value.is_array() || value.empty() || value.front().is_number(); }

}  // namespace

Parsed<std::vector<Prompt>> read_prompts(const json& value, const Model& model, const PromptOptions& options) {
  PromptReader reader(model, options);
  if (is_one_prompt(value)) {
    if (MaybeError error = reader.add(value)) return *error;
    return reader.take();
  }
  for (const json& item : value) {
    if (MaybeError error = reader.add(item)) return *error;
  }
  return reader.take();
}

Parsed<int64_t> room_for_output(const json& prompts, const Model& model) {
  if (model.text == nullptr) {
    return invalid_value("max_tokens",
                         "max_tokens is missing, and without the model's vocabulary (--model) this gateway cannot "
                         "count what fits beside the prompt");
  }
  PromptOptions options;
  options.needs_ids = true;
  const Parsed<std::vector<Prompt>> read = read_prompts(prompts, model, options);
  if (!read.ok()) return read.error();
  size_t longest = 0;
  for (const Prompt& one : read.value()) longest = std::max(longest, one.ids.size());
  return std::max<int64_t>(model.context - static_cast<int64_t>(longest), 1);
}

std::optional<ApiError> add_room_for_output(json& completion, const Models& models) {
  const Parsed<Model> model = models.find(find_field<std::string>(completion, "model").value_or(""));
  if (!model.ok()) return model.error();
  const Parsed<int64_t> room = room_for_output(completion.at("prompt"), model.value());
  if (!room.ok()) return room.error();
  completion["max_tokens"] = room.value();
  return std::nullopt;
}

size_t count_prompts(const json& body) {
  const json& value = body.at("prompt");
  return is_one_prompt(value) ? 1 : value.size();
}

}  // namespace optserve::http_api
