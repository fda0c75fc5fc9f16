#include "converter/formats/huggingface_config.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "checkpoint/io/byte_source.h"
#include "checkpoint/io/strict_json.h"

namespace optserve::converter {
namespace {

using nlohmann::json;

constexpr int kDepthMax = 32;
constexpr size_t kShownMax = 40;

std::string shown(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, kShownMax);
}

std::optional<int64_t> integer(const json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end() || !found->is_number_integer()) return std::nullopt;
  return found->get<int64_t>();
}

void read_sizes(const json& config, const std::string& path, ForeignHints& hints) {
  using model_spec::OptConfig;
  constexpr std::array<std::pair<const char*, int64_t model_spec::OptConfig::*>, 6> kKeys = {
      {{"num_hidden_layers", &model_spec::OptConfig::num_layers},
       {"hidden_size", &model_spec::OptConfig::hidden},
       {"ffn_dim", &model_spec::OptConfig::ffn},
       {"vocab_size", &model_spec::OptConfig::vocab},
       {"word_embed_proj_dim", &model_spec::OptConfig::embed_dim},
       {"max_position_embeddings", &model_spec::OptConfig::max_positions}}};
  for (const auto& [key, size] : kKeys) {
    if (const auto value = integer(config, key)) hints.sizes.push_back({path, key, *value, size});
  }
}

// A number, a list of numbers, or null where no id ends a text.
Status read_eos(const json& config, const std::string& path, ForeignHints& hints) {
  const auto found = config.find("eos_token_id");
  if (found == config.end()) return ok_status();
  const json list = found->is_array() ? *found : json::array({*found});
  std::vector<int64_t> ids;
  for (const json& id : list) {
    if (!id.is_number_integer() && !found->is_null()) {
      return refuse(ErrorCode::kDataCorrupt, path + ": eos_token_id is " + shown(*found) + ", expected ids");
    }
    if (id.is_number_integer() && std::ranges::find(ids, id.get<int64_t>()) == ids.end()) {
      ids.push_back(id.get<int64_t>());
    }
  }
  if (ids.size() > 1 + model_spec::kMoreEosIdsMax) {
    return refuse(ErrorCode::kUnsupportedFormat, path + ": eos_token_id lists " + std::to_string(ids.size()) +
                                                     " ids, at most " + std::to_string(1 + model_spec::kMoreEosIdsMax) +
                                                     " are supported");
  }
  if (ids.empty() && hints.eos_ids.empty()) {
    hints.notes.push_back(path + ": eos_token_id is " + shown(*found) +
                          "; texts end at id 2, unless a request has ignore_eos");
  }
  if (!ids.empty()) hints.eos_ids = std::move(ids);
  return ok_status();
}

Status read_special_ids(const json& config, const std::string& path, ForeignHints& hints) {
  if (const auto id = integer(config, "bos_token_id")) hints.bos_id = id;
  if (const auto id = integer(config, "pad_token_id")) hints.pad_id = id;
  return read_eos(config, path, hints);
}

// Whether a setting has an effect: one that is absent, null, false or empty has none, nor has a neutral number.
bool asks_for_something(const std::string& key, const json& value) {
  if (value.is_null() || value == json(false) || value == json("") || (value.is_structured() && value.empty())) {
    return false;
  }
  constexpr std::array<std::pair<std::string_view, double>, 13> kNeutral = {{{"temperature", 1},
                                                                             {"top_p", 1},
                                                                             {"top_k", 50},
                                                                             {"typical_p", 1},
                                                                             {"num_beams", 1},
                                                                             {"num_beam_groups", 1},
                                                                             {"diversity_penalty", 0},
                                                                             {"repetition_penalty", 1},
                                                                             {"length_penalty", 1},
                                                                             {"no_repeat_ngram_size", 0},
                                                                             {"min_length", 0},
                                                                             {"max_length", 20},
                                                                             {"num_return_sequences", 1}}};
  return std::ranges::none_of(kNeutral, [&](const auto& neutral) {
    return neutral.first == key && value.is_number() && value.get<double>() == neutral.second;
  });
}

void note_ignored(const std::string& path, const std::string& keys, std::string_view why, ForeignHints& hints) {
  if (!keys.empty()) hints.notes.push_back(path + ": not stored: " + keys + "; " + std::string(why));
}

// Settings of generate() that a checkpoint does not carry.
void note_generation_settings(const json& config, const std::string& path, ForeignHints& hints) {
  constexpr std::array<std::string_view, 20> kKeys = {"prefix",
                                                      "forced_bos_token_id",
                                                      "forced_eos_token_id",
                                                      "bad_words_ids",
                                                      "suppress_tokens",
                                                      "temperature",
                                                      "begin_suppress_tokens",
                                                      "do_sample",
                                                      "top_k",
                                                      "top_p",
                                                      "typical_p",
                                                      "num_beams",
                                                      "diversity_penalty",
                                                      "repetition_penalty",
                                                      "length_penalty",
                                                      "min_length",
                                                      "no_repeat_ngram_size",
                                                      "task_specific_params",
                                                      "num_return_sequences",
                                                      "max_length"};
  std::string keys;
  for (const std::string_view key : kKeys) {
    const auto found = config.find(key);
    if (found == config.end() || !asks_for_something(std::string(key), *found)) continue;
    keys += (keys.empty() ? "" : ", ") + std::string(key) + " " + shown(*found);
  }
  note_ignored(path, keys, "requests say themselves how they are answered", hints);
}

}  // namespace

Status parse_huggingface_config(std::string_view text, const std::string& path, ForeignHints& hints) {
  const Result<json> parsed = checkpoint::parse_json_strict(text, path, kDepthMax);
  if (!parsed.ok()) return parsed.refusal();
  const json& config = parsed.value();
  const auto unsupported = [&](const std::string& what) {
    return refuse(ErrorCode::kUnsupportedFormat, path + ": " + what);
  };
  if (!config.is_object() || config.value("model_type", json()) != "opt") {
    return unsupported("model_type is " + (config.is_object() ? shown(config.value("model_type", json())) : "missing") +
                       ", expected \"opt\"");
  }
  const json activation = config.value("activation_function", json("relu"));
  if (activation != "relu" && activation != "gelu") {
    return unsupported("activation_function is " + shown(activation) + ", expected \"relu\" or \"gelu\"");
  }
  if (const json method = config.value("quantization_config", json()); !method.is_null()) {
    return unsupported("the weights are quantised (quantization_config " +
                       shown(method.is_object() ? method.value("quant_method", method) : method) +
                       "), which is not read; convert the model that they were made from");
  }
  if (activation == "gelu") hints.activation = model_spec::Activation::kGelu;
  hints.has_biases = config.value("enable_bias", json(true)) != false;
  hints.has_affine_norms = config.value("layer_norm_elementwise_affine", json(true)) != false;
  hints.final_norm = config.value("_remove_final_layer_norm", json(false)) != true;
  read_sizes(config, path, hints);
  hints.num_heads = integer(config, "num_attention_heads");
  if (hints.num_heads) hints.num_heads_key = path + ": num_attention_heads";
  hints.tied_output = config.value("tie_word_embeddings", json(true)) != false;  // transformers' default
  if (const auto before = config.find("do_layer_norm_before"); before != config.end() && before->is_boolean()) {
    hints.norm_before = before->get<bool>();
  }
  note_generation_settings(config, path, hints);
  return read_special_ids(config, path, hints);
}

Status parse_generation_config(std::string_view text, const std::string& path, ForeignHints& hints) {
  const Result<json> parsed = checkpoint::parse_json_strict(text, path, kDepthMax);
  if (!parsed.ok()) return parsed.refusal();
  if (!parsed.value().is_object()) return checkpoint::corrupt_file(path, "expected an object");
  note_generation_settings(parsed.value(), path, hints);
  return read_special_ids(parsed.value(), path, hints);
}

}  // namespace optserve::converter
