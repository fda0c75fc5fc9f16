#include "model_spec/opt_config.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "base/input_check.h"
#include "base/limits.h"
#include "model_spec/opt_tensors.h"

namespace optserve::model_spec {
namespace {

constexpr int64_t kLayersMax = 1024;
constexpr int64_t kWidthMax = 1 << 20;  // of hidden, ffn, embed_dim; a product of two fits int64 easily
constexpr int64_t kUnusedPositionRows = 2;

OptConfig published(std::string name, int64_t layers, int64_t hidden, int64_t heads) {
  OptConfig config;
  config.name = std::move(name);
  config.num_layers = layers;
  config.hidden = hidden;
  config.num_heads = heads;
  config.ffn = 4 * hidden;
  config.vocab = 50272;
  config.vocab_real = 50265;
  config.embed_dim = hidden;
  config.max_positions = 2048;
  return config;
}

OptConfig published_350m() {
  OptConfig config = published("opt-350m", 24, 1024, 16);
  config.embed_dim = 512;
  config.norm_before = false;
  return config;
}

Refusal bad(std::string_view field, int64_t value, const std::string& expected) {
  return refuse(ErrorCode::kBadRequest,
                "model config: " + std::string(field) + " is " + std::to_string(value) + ", expected " + expected);
}

struct SizeField {
  std::string_view name;
  int64_t OptConfig::*member;
  int64_t max;
};
constexpr std::array<SizeField, 8> kSizeFields = {{{"num_layers", &OptConfig::num_layers, kLayersMax},
                                                   {"hidden", &OptConfig::hidden, kWidthMax},
                                                   {"num_heads", &OptConfig::num_heads, kWidthMax},
                                                   {"ffn", &OptConfig::ffn, kWidthMax},
                                                   {"vocab", &OptConfig::vocab, limits::kVocabularyMax},
                                                   {"vocab_real", &OptConfig::vocab_real, limits::kVocabularyMax},
                                                   {"embed_dim", &OptConfig::embed_dim, kWidthMax},
                                                   {"max_positions", &OptConfig::max_positions, 1 << 20}}};

struct IdField {
  std::string_view name;
  TokenId OptConfig::*member;
};
constexpr std::array<IdField, 3> kIdFields = {
    {{"bos_id", &OptConfig::bos_id}, {"eos_id", &OptConfig::eos_id}, {"pad_id", &OptConfig::pad_id}}};

struct FlagField {
  std::string_view name;
  bool OptConfig::*member;
  bool is_optional;  // left out of the JSON if true
};
constexpr std::array<FlagField, 4> kFlagFields = {{{"norm_before", &OptConfig::norm_before, false},
                                                   {"tied_output", &OptConfig::tied_output, false},
                                                   {"final_norm", &OptConfig::final_norm, true},
                                                   {"leads_with_bos", &OptConfig::leads_with_bos, true}}};

constexpr std::string_view kActivation = "activation";
constexpr std::string_view kVocabPadding = "vocab_padding";
constexpr std::string_view kMoreEosIds = "more_eos_ids";

Refusal bad_json(const std::string& what) { return refuse(ErrorCode::kDataCorrupt, "model config: " + what); }

Result<int64_t> integer_of(const nlohmann::json& json, std::string_view key) {
  const auto found = json.find(key);
  if (found == json.end()) return bad_json("key '" + std::string(key) + "' is missing");
  const bool fits = found->is_number_integer() && (!found->is_number_unsigned() || found->get<uint64_t>() <= INT32_MAX);
  if (!fits) return bad_json("key '" + std::string(key) + "' must be an integer, is " + found->dump());
  return found->get<int64_t>();
}

Status check_keys(const nlohmann::json& json) {
  std::set<std::string_view> known = {"name", kActivation, kVocabPadding, kMoreEosIds};
  for (const auto& field : kSizeFields) known.insert(field.name);
  for (const auto& field : kIdFields) known.insert(field.name);
  for (const auto& field : kFlagFields) known.insert(field.name);
  for (const auto& [key, value] : json.items()) {
    if (!known.contains(key)) return bad_json("unknown key '" + key + "'");
  }
  return ok_status();
}

Result<TokenId> id_of(std::string_view name, const nlohmann::json& json) {
  const bool fits = json.is_number_integer() && (!json.is_number_unsigned() || json.get<uint64_t>() <= INT32_MAX);
  if (!fits || json.get<int64_t>() < 0) {
    return bad_json("key '" + std::string(name) + "' must be an id, is " + json.dump().substr(0, 40));
  }
  return json.get<TokenId>();
}

// Fields that only relatives of OPT have.
Status read_optional(const nlohmann::json& json, OptConfig& config) {
  if (json.contains(kVocabPadding)) {
    const Result<int64_t> padding = integer_of(json, kVocabPadding);
    if (!padding.ok()) return padding.refusal();
    config.vocab_padding = padding.value();
  }
  const auto ids = json.find(kMoreEosIds);
  if (ids == json.end()) return ok_status();
  if (!ids->is_array()) return bad_json("key '" + std::string(kMoreEosIds) + "' must be a list of ids");
  for (const nlohmann::json& value : *ids) {
    const Result<TokenId> id = id_of(kMoreEosIds, value);
    if (!id.ok()) return id.refusal();
    config.more_eos_ids.push_back(id.value());
  }
  return ok_status();
}

Status check_more_eos_ids(const OptConfig& config) {
  const std::vector<TokenId>& ids = config.more_eos_ids;
  if (ids.size() > kMoreEosIdsMax) {
    return bad(kMoreEosIds, static_cast<int64_t>(ids.size()), "at most " + std::to_string(kMoreEosIdsMax) + " ids");
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= config.vocab_real) {
      return bad(kMoreEosIds, ids[i], "ids below vocab_real, which is " + std::to_string(config.vocab_real));
    }
    if (ids[i] == config.eos_id || (i > 0 && ids[i] <= ids[i - 1])) {
      return bad(kMoreEosIds, ids[i], "ascending ids other than eos_id");
    }
  }
  return ok_status();
}

}  // namespace

Status validate(const OptConfig& config) {
  if (Status status = check_name("model config: name", config.name, 1, limits::kModelNameBytesMax); !status.ok()) {
    return status;
  }
  for (const auto& [name, member, max] : kSizeFields) {
    if (Status status = check_range("model config: " + std::string(name), config.*member, 1, max); !status.ok()) {
      return status;
    }
  }
  if (config.hidden % config.num_heads != 0) {
    return bad("hidden", config.hidden, "a multiple of num_heads, which is " + std::to_string(config.num_heads));
  }
  if (config.vocab_real > config.vocab) {
    return bad("vocab_real", config.vocab_real, "at most vocab, which is " + std::to_string(config.vocab));
  }
  if (config.vocab_padding < 0 || config.vocab_padding > config.vocab - config.vocab_real) {
    return bad("vocab_padding", config.vocab_padding,
               "0 to " + std::to_string(config.vocab - config.vocab_real) + ", the rows that are no tokens");
  }
  if (!config.norm_before && !config.final_norm) {
    return refuse(ErrorCode::kBadRequest,
                  "model config: final_norm is false, which only means something where "
                  "norm_before is true");
  }
  for (const auto& [name, member] : kIdFields) {
    if (const int64_t end = member == &OptConfig::pad_id ? config.vocab : config.vocab_real;
        config.*member < 0 || config.*member >= end) {
      return bad(name, config.*member, "an id below " + std::to_string(end) + ", the number of ids");
    }
  }
  return check_more_eos_ids(config);
}

int64_t parameter_count(const OptConfig& config) {
  int64_t total = 0;
  for (const TensorSpec& spec : opt_tensors(config)) total += spec.rows * spec.cols;
  return total;
}

int64_t published_parameter_count(const OptConfig& config) {
  return parameter_count(config) + kUnusedPositionRows * config.hidden;
}

int64_t kv_bytes_per_token(const OptConfig& config, int64_t bytes_per_element) {
  return 2 * config.num_layers * config.hidden * bytes_per_element;
}

bool is_legal_world(const OptConfig& config, int64_t world) {
  return world >= 1 && world <= limits::kWorldSizeMax && config.num_heads % world == 0 && config.ffn % world == 0 &&
         config.vocab % world == 0;
}

std::vector<int> legal_worlds(const OptConfig& config) {
  std::vector<int> worlds;
  for (int world = 1; world <= limits::kWorldSizeMax; ++world) {
    if (is_legal_world(config, world)) worlds.push_back(world);
  }
  return worlds;
}

std::string legal_worlds_text(const OptConfig& config) {
  std::string text;
  for (int world : legal_worlds(config)) text += (text.empty() ? "" : ", ") + std::to_string(world);
  return text;
}

OptConfig with_padded_vocab(const OptConfig& config, int64_t world) {
  OptConfig padded = config;
  const int64_t missing = (world - config.vocab_stored() % world) % world;
  padded.vocab = config.vocab_stored() + missing;
  padded.vocab_padding = missing;
  return padded;
}

std::span<const OptConfig> published_configs() {
  static const std::array<OptConfig, 9> kFamily = {
      published("opt-125m", 12, 768, 12),   published_350m(),
      published("opt-1.3b", 24, 2048, 32),  published("opt-2.7b", 32, 2560, 32),
      published("opt-6.7b", 32, 4096, 32),  published("opt-13b", 40, 5120, 40),
      published("opt-30b", 48, 7168, 56),   published("opt-66b", 64, 9216, 72),
      published("opt-175b", 96, 12288, 96),
  };
  return kFamily;
}

const OptConfig* find_published(std::string_view name) {
  for (const OptConfig& config : published_configs()) {
    if (config.name == name) return &config;
  }
  return nullptr;
}

const OptConfig* find_published(int64_t num_layers, int64_t hidden) {
  for (const OptConfig& config : published_configs()) {
    if (config.num_layers == num_layers && config.hidden == hidden) return &config;
  }
  return nullptr;
}

std::string_view activation_name(Activation activation) { return activation == Activation::kGelu ? "gelu" : "relu"; }

nlohmann::json to_json(const OptConfig& config) {
  nlohmann::json json = {{"name", config.name}, {kActivation, activation_name(config.activation)}};
  for (const auto& field : kSizeFields) json[std::string(field.name)] = config.*field.member;
  for (const auto& field : kIdFields) json[std::string(field.name)] = config.*field.member;
  for (const auto& field : kFlagFields) {
    if (!field.is_optional || !(config.*field.member)) json[std::string(field.name)] = config.*field.member;
  }
  if (config.vocab_padding > 0) json[std::string(kVocabPadding)] = config.vocab_padding;
  if (!config.more_eos_ids.empty()) json[std::string(kMoreEosIds)] = config.more_eos_ids;
  return json;
}

Result<OptConfig> config_from_json(const nlohmann::json& json) {
  if (!json.is_object()) return bad_json("must be an object");
  if (Status keys = check_keys(json); !keys.ok()) return keys.refusal();
  OptConfig config;
  const auto name = json.find("name");
  if (name == json.end() || !name->is_string()) return bad_json("key 'name' must be a string");
  config.name = name->get<std::string>();
  const auto activation = json.find(kActivation);
  if (activation == json.end() || (*activation != "relu" && *activation != "gelu")) {
    return bad_json("key 'activation' must be \"relu\" or \"gelu\"");
  }
  config.activation = *activation == "gelu" ? Activation::kGelu : Activation::kRelu;
  for (const auto& field : kSizeFields) {
    Result<int64_t> value = integer_of(json, field.name);
    if (!value.ok()) return value.refusal();
    config.*field.member = value.value();
  }
  for (const auto& field : kIdFields) {
    Result<int64_t> value = integer_of(json, field.name);
    if (!value.ok()) return value.refusal();
    if (value.value() < 0 || value.value() > INT32_MAX) return bad(field.name, value.value(), "an id");
    config.*field.member = static_cast<TokenId>(value.value());
  }
  for (const auto& field : kFlagFields) {
    const auto value = json.find(field.name);
    if (value == json.end() && field.is_optional) continue;
    if (value == json.end() || !value->is_boolean()) {
      return bad_json("key '" + std::string(field.name) + "' must be true or false");
    }
    config.*field.member = value->get<bool>();
  }
  if (Status status = read_optional(json, config); !status.ok()) return status.refusal();
  if (Status status = validate(config); !status.ok()) return status.refusal();
  return config;
}

}  // namespace optserve::model_spec
