#include "converter/formats/infer_config.h"

#include <algorithm>
#include <charconv>

#include "converter/formats/mapper.h"

namespace optserve::converter {
namespace {

constexpr int64_t kOptVocab = 50272;      // rows of the published models' token table
constexpr int64_t kOptVocabReal = 50265;  // of which these are tokens

Refusal unknown(const std::string& what) {
  return refuse(ErrorCode::kUnsupportedFormat, "not a checkpoint of an OPT model: " + what);
}

const ForeignTensor* find(const ForeignPart& part, const std::string& name, size_t axes) {
  const auto found = part.find(name);
  return found == part.end() || found->second->shape().size() != axes ? nullptr : found->second.get();
}

// One more than the largest i of "decoder.layers.<i>.fc1.weight".
int64_t count_layers(const ForeignPart& part) {
  int64_t layers = 0;
  constexpr std::string_view kPrefix = "decoder.layers.";
  for (const auto& [name, tensor] : part) {
    if (!name.starts_with(kPrefix) || !name.ends_with(".fc1.weight")) continue;
    int64_t index = 0;
    const char* begin = name.data() + kPrefix.size();
    const auto [end, error] = std::from_chars(begin, name.data() + name.size(), index);
    if (error == std::errc() && *end == '.' && index < 100'000) layers = std::max(layers, index + 1);
  }
  return layers;
}

// Taken from the files, else as asked for, else from the published model of these sizes.
Result<int64_t> find_heads(const ForeignCheckpoint& foreign, const model_spec::OptConfig& config, int64_t asked) {
  if (asked > 0 && foreign.hints.num_heads.value_or(asked) != asked) {
    return refuse(ErrorCode::kBadRequest, std::to_string(asked) + " attention heads were asked for, but " +
                                              foreign.hints.num_heads_key + " is " +
                                              std::to_string(*foreign.hints.num_heads));
  }
  const model_spec::OptConfig* published = model_spec::find_published(config.num_layers, config.hidden);
  const int64_t heads = asked > 0                             ? asked
                        : foreign.hints.num_heads.has_value() ? *foreign.hints.num_heads
                        : published != nullptr                ? published->num_heads
                                                              : 0;
  if (heads == 0) {
    return refuse(ErrorCode::kBadRequest,
                  "the files do not say how many attention heads the model has, and no published OPT has " +
                      std::to_string(config.num_layers) + " layers of width " + std::to_string(config.hidden) +
                      "; give the number of heads (--heads)");
  }
  if (heads < 0 || config.hidden % heads != 0) {
    return refuse(ErrorCode::kBadRequest, "the number of attention heads is " + std::to_string(heads) +
                                              ", must divide the width " + std::to_string(config.hidden));
  }
  return heads;
}

// The tensors must have the sizes that the configurations state.
Status check_claims(const ForeignCheckpoint& foreign, const model_spec::OptConfig& config) {
  std::string faults;
  for (const SizeClaim& claim : foreign.hints.sizes) {
    if (claim.value != config.*claim.size) {
      faults += "\n  " + claim.file + ": " + claim.key + " is " + std::to_string(claim.value) + ", the tensors have " +
                std::to_string(config.*claim.size);
    }
  }
  if (faults.empty()) return ok_status();
  return refuse(ErrorCode::kDataCorrupt,
                "the configuration contradicts the tensors:" + faults + other_part_count(foreign));
}

TokenId id_of(int64_t value) { return static_cast<TokenId>(std::clamp<int64_t>(value, -1, INT32_MAX)); }

void set_special_ids(const ForeignHints& hints, model_spec::OptConfig& config) {
  config.bos_id = id_of(hints.bos_id.value_or(config.bos_id));
  config.pad_id = id_of(hints.pad_id.value_or(config.pad_id));
  if (!hints.eos_ids.empty()) config.eos_id = id_of(hints.eos_ids[0]);
  for (size_t i = 1; i < hints.eos_ids.size(); ++i) config.more_eos_ids.push_back(id_of(hints.eos_ids[i]));
  std::ranges::sort(config.more_eos_ids);
  // Padding is never drawn. If an id is both padding and the end of a text, as in many fine-tuned models, it has to end
  // texts.
  const auto ends = [&](TokenId id) {
    return id == config.eos_id || std::ranges::find(config.more_eos_ids, id) != config.more_eos_ids.end();
  };
  for (TokenId id = 1; ends(config.pad_id); id = id == 1 ? 0 : config.pad_id + 1) config.pad_id = id;
}

}  // namespace

Result<model_spec::OptConfig> infer_config(const ForeignCheckpoint& foreign, const std::string& name,
                                           int64_t num_heads) {
  const ForeignPart& first = foreign.parts.at(0);
  const ForeignTensor* tokens = find(first, "decoder.embed_tokens.weight", 2);
  const ForeignTensor* positions = find(first, "decoder.embed_positions.weight", 2);
  const ForeignTensor* fc1 = find(first, "decoder.layers.0.fc1.weight", 2);
  for (const auto& [tensor, metaseq] : {std::pair{tokens, "decoder.embed_tokens.weight"},
                                        {positions, "decoder.embed_positions.weight"},
                                        {fc1, "decoder.layers.0.fc1.weight"}}) {
    if (tensor == nullptr) return unknown(file_spelling(foreign, metaseq) + " is missing");
  }
  const auto parts = static_cast<int64_t>(foreign.parts.size());
  model_spec::OptConfig config;
  config.name = name;
  config.num_layers = count_layers(first);
  config.hidden = fc1->columns();
  config.ffn = fc1->rows() * parts;
  config.vocab = tokens->rows() * (foreign.is_vocab_whole ? 1 : parts);
  config.vocab_real = config.vocab == kOptVocab ? kOptVocabReal : config.vocab;
  config.embed_dim = tokens->columns();
  config.max_positions = positions->rows() - foreign.unused_position_rows;
  const bool is_post_norm = !foreign.hints.norm_before.value_or(config.embed_dim == config.hidden);
  config.norm_before = first.contains("decoder.layer_norm.weight") || !is_post_norm;
  if (is_post_norm && config.norm_before && foreign.hints.norm_before) {
    return unknown("it has a final norm, but its configuration says post-norm");
  }
  config.final_norm = foreign.hints.final_norm || !config.norm_before;
  config.activation = foreign.hints.activation;
  if (Status status = check_claims(foreign, config); !status.ok()) return status.refusal();
  const Result<int64_t> heads = find_heads(foreign, config, num_heads);
  if (!heads.ok()) return heads.refusal();
  config.num_heads = heads.value();
  set_special_ids(foreign.hints, config);
  if (Status status = model_spec::validate(config); !status.ok()) return status.refusal();
  return config;
}

}  // namespace optserve::converter
