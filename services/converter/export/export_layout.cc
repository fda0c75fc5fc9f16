#include "converter/export/export_layout.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "checkpoint/io/strict_json.h"
#include "checkpoint/torch/pickle_writer.h"
#include "converter/formats/mapper.h"

namespace optserve::converter {
namespace {

using model_spec::Block;
using model_spec::OptConfig;
using model_spec::RowRange;
using model_spec::Split;
using model_spec::TensorSpec;
using nlohmann::ordered_json;

constexpr int64_t kUnusedPositionRows = 2;
constexpr std::string_view kFused = "qkv_proj";

ExportTensor whole_or_block(const TensorSpec& spec, std::string name, Block block) {
  ExportTensor tensor{std::move(name), {}, spec, std::move(block), 0, std::nullopt};
  if (spec.name == "embed_positions.weight") tensor.zero_rows = kUnusedPositionRows;
  tensor.shape = {tensor.block.row_count() + tensor.zero_rows};
  if (spec.is_matrix) tensor.shape.push_back(tensor.block.cols);
  return tensor;
}

std::string replaced(std::string name, std::string_view from, std::string_view to) {
  const size_t at = name.find(from);
  check(at != std::string::npos, "export: " + name + " without " + std::string(from));
  return name.replace(at, from.size(), to);
}

// A part's block, without the rows that pad the tables.
Block stored_block(const model_spec::OptConfig& config, const TensorSpec& spec, int64_t part, int64_t parts) {
  TensorSpec stored = spec;
  if (spec.name == "embed_tokens.weight" || spec.name == "output_projection.weight") {
    stored.rows = config.vocab_stored();
  }
  return model_spec::block_of(stored, part, parts);
}

// q, k and v as tensors of their own, in the order of `letters`.
void add_separate(std::vector<ExportTensor>& out, const TensorSpec& spec, const std::string& fused_name,
                  std::string_view letters) {
  const Block all = model_spec::block_of(spec, 0, 1);
  for (const char letter : letters) {
    const size_t third = std::string_view("qkv").find(letter);
    out.push_back(whole_or_block(spec, replaced(fused_name, kFused, std::string(1, letter) + "_proj"),
                                 {{all.rows[third]}, 0, spec.cols}));
  }
}

std::string huggingface_name(const TensorSpec& spec) {
  std::string name = metaseq_name(spec.name);
  if (name == "decoder.output_projection.weight") return "lm_head.weight";
  constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kRenamed = {
      {{"decoder.layer_norm.", "decoder.final_layer_norm."},
       {"decoder.project_in_dim.", "decoder.project_in."},
       {"decoder.project_out_dim.", "decoder.project_out."}}};
  for (const auto& [metaseq, theirs] : kRenamed) {
    if (name.starts_with(metaseq)) name = std::string(theirs) + name.substr(metaseq.size());
  }
  return "model." + name;
}

// Models of OPT-350M's kind predate model parallelism and fused projections.
bool is_old_architecture(const model_spec::OptConfig& config) {
  return !config.norm_before || config.has_projections();
}

void add_setting(checkpoint::PickleWriter& pickle, std::string_view key, int64_t value) {
  pickle.text(key);
  pickle.integer(value);
}

void add_flag(checkpoint::PickleWriter& pickle, std::string_view key, bool value) {
  pickle.text(key);
  pickle.boolean(value);
}

void add_text(checkpoint::PickleWriter& pickle, std::string_view key, std::string_view value) {
  pickle.text(key);
  pickle.text(value);
}

// cfg["model"] and what Metaseq looks for beside it.
void add_cfg(checkpoint::PickleWriter& pickle, const model_spec::OptConfig& config, int64_t parts) {
  pickle.begin_dict();
  pickle.text("common");
  pickle.begin_dict();
  add_setting(pickle, "model_parallel_size", parts);
  pickle.end_dict();
  pickle.text("model");
  pickle.begin_dict();
  const char* architecture = parts > 1 ? "transformer_lm_megatron" : "transformer_lm_gpt";
  add_text(pickle, "_name", architecture);
  add_text(pickle, "arch", architecture);
  add_text(pickle, "activation_fn", model_spec::activation_name(config.activation));
  add_setting(pickle, "decoder_layers", config.num_layers);
  add_setting(pickle, "decoder_attention_heads", config.num_heads);
  add_setting(pickle, "decoder_embed_dim", config.hidden);
  add_setting(pickle, "decoder_ffn_embed_dim", config.ffn);
  add_setting(pickle, "decoder_input_dim", config.embed_dim);
  add_setting(pickle, "decoder_output_dim", config.embed_dim);
  add_setting(pickle, "max_target_positions", config.max_positions);
  add_setting(pickle, "tokens_per_sample", config.max_positions);
  add_setting(pickle, "model_parallel_size", parts);
  add_flag(pickle, "decoder_learned_pos", true);
  add_flag(pickle, "no_scale_embedding", true);
  add_flag(pickle, "decoder_normalize_before", config.norm_before);
  add_flag(pickle, "share_decoder_input_output_embed", config.tied_output);
  pickle.end_dict();
  pickle.end_dict();
}

ordered_json eos_ids(const model_spec::OptConfig& config) {
  if (config.more_eos_ids.empty()) return config.eos_id;
  std::vector<TokenId> ids = {config.eos_id};
  ids.insert(ids.end(), config.more_eos_ids.begin(), config.more_eos_ids.end());
  return ids;
}

}  // namespace

int64_t ExportTensor::elements() const {
  int64_t product = 1;
  for (int64_t size : shape) product *= size;
  return product;
}

std::vector<ExportTensor> huggingface_tensors(const model_spec::OptConfig& config) {
  std::vector<ExportTensor> out;
  for (const TensorSpec& spec : model_spec::opt_tensors(config)) {
    if (spec.split == Split::kQkvRows) {
      add_separate(out, spec, huggingface_name(spec), "kvq");
    } else {
      out.push_back(whole_or_block(spec, huggingface_name(spec), stored_block(config, spec, 0, 1)));
    }
  }
  return out;
}

std::string huggingface_config(const model_spec::OptConfig& config, DType dtype) {
  const char* torch_dtype = dtype == DType::kF16 ? "float16" : dtype == DType::kBF16 ? "bfloat16" : "float32";
  const ordered_json json = {{"architectures", {"OPTForCausalLM"}},
                             {"model_type", "opt"},
                             {"_remove_final_layer_norm", !config.final_norm},
                             {"activation_function", model_spec::activation_name(config.activation)},
                             {"attention_dropout", 0.0},
                             {"bos_token_id", config.bos_id},
                             {"do_layer_norm_before", config.norm_before},
                             {"dropout", 0.1},
                             {"enable_bias", true},
                             {"eos_token_id", eos_ids(config)},
                             {"ffn_dim", config.ffn},
                             {"hidden_size", config.hidden},
                             {"init_std", 0.02},
                             {"layer_norm_elementwise_affine", true},
                             {"layerdrop", 0.0},
                             {"max_position_embeddings", config.max_positions},
                             {"num_attention_heads", config.num_heads},
                             {"num_hidden_layers", config.num_layers},
                             {"pad_token_id", config.pad_id},
                             {"tie_word_embeddings", config.tied_output},
                             {"torch_dtype", torch_dtype},
                             {"use_cache", true},
                             {"vocab_size", config.vocab_stored()},
                             {"word_embed_proj_dim", config.embed_dim}};
  return json.dump(2) + "\n";
}

std::vector<ExportTensor> metaseq_tensors(const model_spec::OptConfig& config, int64_t part, int64_t parts) {
  std::vector<ExportTensor> out;
  out.push_back({"decoder.version", {1}, {}, {}, 0, 3.0f});
  for (const TensorSpec& spec : model_spec::opt_tensors(config)) {
    const std::string name = metaseq_name(spec.name);
    if (spec.split == Split::kQkvRows && is_old_architecture(config)) {
      add_separate(out, spec, name, "kvq");
      continue;
    }
    Block block = stored_block(config, spec, part, parts);
    if (spec.split == Split::kQkvRows) block.rows = {block.rows[1], block.rows[2], block.rows[0]};  // K, V, Q
    out.push_back(whole_or_block(spec, name, std::move(block)));
  }
  return out;
}

std::string metaseq_pickle(const model_spec::OptConfig& config, DType dtype, int64_t parts,
                           const std::vector<ExportTensor>& tensors) {
  checkpoint::PickleWriter pickle;
  pickle.begin_dict();
  pickle.text("cfg");
  add_cfg(pickle, config, parts);
  pickle.text("model");
  pickle.begin_dict();
  for (size_t i = 0; i < tensors.size(); ++i) {
    pickle.text(tensors[i].name);
    pickle.tensor(i, dtype, tensors[i].shape);
  }
  pickle.end_dict();
  pickle.end_dict();
  return pickle.finish();
}

std::string metaseq_file_name(const model_spec::OptConfig& config, int64_t part) {
  return is_old_architecture(config) ? "reshard.pt" : "reshard-model_part-" + std::to_string(part) + ".pt";
}

Status check_metaseq_parts(const model_spec::OptConfig& config, int64_t parts) {
  if (is_old_architecture(config) && parts != 1) {
    return refuse(ErrorCode::kBadRequest,
                  std::to_string(parts) +
                      " parts were asked for, but Metaseq has no model-parallel layout for models "
                      "with norms after a layer or projections; export it in 1 part");
  }
  if (!config.final_norm) {
    return refuse(ErrorCode::kUnsupportedFormat, "Metaseq has no models without a norm after the last layer");
  }
  const model_spec::OptConfig stored = model_spec::with_padded_vocab(config, 1);
  if (model_spec::is_legal_world(stored, parts)) return ok_status();
  return refuse(ErrorCode::kBadRequest, std::to_string(parts) + " parts were asked for, the model allows " +
                                            model_spec::legal_worlds_text(stored));
}

Result<HuggingFaceTokenizer> huggingface_tokenizer(const model_spec::OptConfig& config, std::string_view vocabulary) {
  const Result<nlohmann::json> parsed = checkpoint::parse_json_strict(vocabulary, "the vocabulary", 1);
  if (!parsed.ok()) return parsed.refusal();
  ordered_json special = ordered_json::object();
  const std::array<std::pair<const char*, TokenId>, 4> roles = {{{"bos_token", config.bos_id},
                                                                 {"eos_token", config.eos_id},
                                                                 {"unk_token", config.eos_id},  // as OPT's own has it
                                                                 {"pad_token", config.pad_id}}};
  for (const auto& [role, id] : roles) {
    for (const auto& [token, value] : parsed.value().items()) {
      if (value == id) special[role] = token;
    }
  }
  ordered_json settings = {{"tokenizer_class", "GPT2Tokenizer"},
                           {"add_bos_token", config.leads_with_bos},
                           {"add_prefix_space", false},
                           {"errors", "replace"},
                           {"model_max_length", config.max_positions}};
  for (const auto& [role, token] : special.items()) settings[role] = token;
  return HuggingFaceTokenizer{settings.dump(2) + "\n", special.dump(2) + "\n"};
}

}  // namespace optserve::converter
