#include "converter/formats/huggingface.h"

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/hex.h"
#include "base/sha256.h"
#include "checkpoint/io/strict_json.h"

namespace optserve::converter {
namespace {

using checkpoint::PickleDocument;
using checkpoint::ValueId;
using checkpoint::ValueKind;
using nlohmann::json;

constexpr uint64_t kConfigBytesMax = 1 << 20;

// "model.decoder.final_layer_norm.weight" to "decoder.layer_norm.weight", and so on.
std::string metaseq_spelling(std::string name) {
  if (name.starts_with("model.")) name.erase(0, 6);
  if (name == "lm_head.weight") return "decoder.output_projection.weight";
  if (!name.starts_with("decoder.")) name = "decoder." + name;
  constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kRenamed = {
      {{"decoder.final_layer_norm.", "decoder.layer_norm."},
       {"decoder.project_in.", "decoder.project_in_dim."},
       {"decoder.project_out.", "decoder.project_out_dim."}}};
  for (const auto& [theirs, metaseq] : kRenamed)
    if (name.starts_with(theirs)) return std::string(metaseq) + name.substr(theirs.size());
  return name;
}

using Places = std::map<std::string, std::string>;  // tensor to the file that holds it

Status add_tensor(ForeignPart& part, const std::string& file, const std::string& name,
                  std::unique_ptr<ForeignTensor> tensor, Places& places) {
  places[name] = std::filesystem::path(file).filename().string();
  if (part.emplace(metaseq_spelling(name), std::move(tensor)).second) return ok_status();
  return refuse(ErrorCode::kDataCorrupt, file + ": tensor " + name + " occurs twice");
}

// A header holds no checksums of the weights, so the time of their last change stands in for them.
std::string index_digest(const checkpoint::InputFile& file, const checkpoint::SafetensorsHeader& header) {
  std::string index(header.data_begin, '\0');
  file.read_at(0, std::as_writable_bytes(std::span(index)));
  return to_hex(sha256(index + std::to_string(file.modified_ns())));
}

Status add_safetensors(const std::string& path, ForeignCheckpoint& foreign, Places& places) {
  Result<std::unique_ptr<checkpoint::InputFile>> file = checkpoint::InputFile::open(path);
  if (!file.ok()) return file.refusal();
  const Result<checkpoint::SafetensorsHeader> header = checkpoint::read_safetensors(*file.value());
  if (!header.ok()) return header.refusal();
  for (const checkpoint::StoredTensor& tensor : header.value().tensors)
    if (Status status =
            add_tensor(foreign.parts[0], path, tensor.name, tensor_of_safetensors(*file.value(), tensor), places);
        !status.ok())
      return status;
  foreign.files.push_back({std::filesystem::path(path).filename().string(), file.value()->size(),
                           index_digest(*file.value(), header.value())});
  foreign.plain_files.push_back(std::move(file).value());
  return ok_status();
}

Status add_bin(const std::string& path, ForeignCheckpoint& foreign, Places& places) {
  Result<std::unique_ptr<checkpoint::PtFile>> opened = checkpoint::PtFile::open(path);
  if (!opened.ok()) return opened.refusal();
  checkpoint::PtFile& file = *opened.value();
  const PickleDocument& doc = file.document();
  if (doc.kind(doc.root()) != ValueKind::kDict)
    return refuse(ErrorCode::kUnsupportedFormat, path + ": expected a dictionary of tensors");
  for (const auto& [key, value] : doc.pairs(doc.root())) {
    const bool is_tensor = doc.kind(key) == ValueKind::kString && doc.kind(value) == ValueKind::kTensor &&
                           checkpoint::PtFile::readable(doc.tensor(value));
    if (!is_tensor) return refuse(ErrorCode::kUnsupportedFormat, path + ": holds an entry that is not a tensor");
    if (Status status = add_tensor(foreign.parts[0], path, std::string(doc.text(key)),
                                   tensor_of_pt(file, doc.tensor(value)), places);
        !status.ok())
      return status;
  }
  foreign.files.push_back(
      {std::filesystem::path(path).filename().string(), file.source().size(), file.directory_sha256()});
  foreign.pt_files.push_back(std::move(opened).value());
  return ok_status();
}

std::optional<int64_t> integer(const json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end() || !found->is_number_integer()) return std::nullopt;
  return found->get<int64_t>();
}

// Every tensor must be in the file that the index names.
Status check_index(const std::string& folder, const HuggingFaceFiles& files, const Places& places) {
  if (files.index.empty()) return ok_status();
  const auto fault = [&](const std::string& what) {
    return refuse(ErrorCode::kDataCorrupt, folder + ": the index and the files contradict each other: " + what);
  };
  for (const auto& [tensor, file] : files.index) {
    const auto found = places.find(tensor);
    if (found == places.end()) return fault(tensor + " is not in " + file);
    if (found->second != file) return fault(tensor + " is in " + found->second + ", not in " + file);
  }
  for (const auto& [tensor, file] : places)
    if (!files.index.contains(tensor)) return fault(tensor + " of " + file + " is not in the index");
  return ok_status();
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
  for (const auto& [key, size] : kKeys)
    if (const auto value = integer(config, key)) hints.sizes.push_back({path, key, *value, size});
}

}  // namespace

Status parse_huggingface_config(std::string_view text, const std::string& path, ForeignHints& hints) {
  const Result<json> parsed = checkpoint::parse_json_strict(text, path, 32);
  if (!parsed.ok()) return parsed.refusal();
  const json& config = parsed.value();
  const auto unsupported = [&](const std::string& what) {
    return refuse(ErrorCode::kUnsupportedFormat, path + ": " + what);
  };
  if (!config.is_object() || config.value("model_type", json()) != "opt")
    return unsupported("model_type is " +
                       (config.is_object() ? config.value("model_type", json()).dump().substr(0, 40) : "missing") +
                       ", expected \"opt\"");
  if (config.value("activation_function", json("relu")) != "relu")
    return unsupported("activation_function is not relu, so the model is not an OPT");
  if (config.value("enable_bias", json(true)) != true ||
      config.value("layer_norm_elementwise_affine", json(true)) != true)
    return unsupported("biases or norm weights are disabled, which no published OPT does");
  if (config.value("_remove_final_layer_norm", json(false)) == true)
    return unsupported("the final norm is removed, which no published OPT does");
  read_sizes(config, path, hints);
  hints.num_heads = integer(config, "num_attention_heads");
  hints.tied_output = config.value("tie_word_embeddings", json(true)) != false;  // transformers' default
  if (const auto before = config.find("do_layer_norm_before"); before != config.end() && before->is_boolean())
    hints.norm_before = before->get<bool>();
  hints.eos_id = integer(config, "eos_token_id");
  hints.bos_id = integer(config, "bos_token_id");
  hints.pad_id = integer(config, "pad_token_id");
  return ok_status();
}

Result<ForeignCheckpoint> open_huggingface(const std::string& folder, const HuggingFaceFiles& files) {
  ForeignCheckpoint foreign;
  foreign.kind = "huggingface";
  foreign.parts.emplace_back();
  const std::string config = folder + "/config.json";
  const Result<std::string> text = checkpoint::read_text_file(config, kConfigBytesMax);
  if (!text.ok()) return text.refusal();
  if (Status status = parse_huggingface_config(text.value(), config, foreign.hints); !status.ok())
    return status.refusal();
  Places places;
  for (const std::string& name : files.names) {
    const std::string path = folder + "/" + name;
    const Status status =
        files.is_safetensors ? add_safetensors(path, foreign, places) : add_bin(path, foreign, places);
    if (!status.ok()) return status.refusal();
  }
  if (Status status = check_index(folder, files, places); !status.ok()) return status.refusal();
  foreign.layout = std::to_string(files.names.size()) + (files.is_safetensors ? " safetensors" : " pytorch .bin") +
                   (files.names.size() == 1 ? " file" : " files");
  return foreign;
}

}  // namespace optserve::converter
