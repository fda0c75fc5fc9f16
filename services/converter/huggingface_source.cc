#include "converter/huggingface_source.h"

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "checkpoint/strict_json.h"

namespace optserve::converter {
namespace {

using checkpoint::PickleDocument;
using checkpoint::ValueId;
using checkpoint::ValueKind;
using nlohmann::json;

constexpr uint64_t kConfigBytesMax = 1 << 20;
constexpr uint64_t kIndexBytesMax = 16 << 20;

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

Status add_tensor(ForeignPart& part, const std::string& file, const std::string& name,
                  std::unique_ptr<ForeignTensor> tensor) {
  if (part.emplace(metaseq_spelling(name), std::move(tensor)).second) return ok_status();
  return refuse(ErrorCode::kDataCorrupt, file + ": tensor " + name + " occurs twice");
}

Status add_safetensors(const std::string& path, ForeignCheckpoint& foreign) {
  Result<std::unique_ptr<checkpoint::InputFile>> file = checkpoint::InputFile::open(path);
  if (!file.ok()) return file.refusal();
  const Result<checkpoint::SafetensorsHeader> header = checkpoint::read_safetensors(*file.value());
  if (!header.ok()) return header.refusal();
  for (const checkpoint::StoredTensor& tensor : header.value().tensors)
    if (Status status = add_tensor(foreign.parts[0], path, tensor.name, tensor_of_safetensors(*file.value(), tensor));
        !status.ok())
      return status;
  foreign.files.push_back({std::filesystem::path(path).filename().string(), file.value()->size(), ""});
  foreign.plain_files.push_back(std::move(file).value());
  return ok_status();
}

Status add_bin(const std::string& path, ForeignCheckpoint& foreign) {
  Result<std::unique_ptr<checkpoint::PtFile>> opened = checkpoint::PtFile::open(path);
  if (!opened.ok()) return opened.refusal();
  checkpoint::PtFile& file = *opened.value();
  const PickleDocument& doc = file.document();
  if (doc.kind(doc.root()) != ValueKind::kDict)
    return refuse(ErrorCode::kUnsupportedFormat, path + ": expected a dictionary of tensors");
  for (const auto& [key, value] : doc.pairs(doc.root())) {
    const bool is_tensor = doc.kind(key) == ValueKind::kString && doc.kind(value) == ValueKind::kTensor &&
                           checkpoint::PtFile::readable(doc.tensor(value));
    if (!is_tensor) return refuse(ErrorCode::kUnsupportedFormat, path + ": holds an entry that is no tensor");
    if (Status status =
            add_tensor(foreign.parts[0], path, std::string(doc.text(key)), tensor_of_pt(file, doc.tensor(value)));
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

// The text of a file of the folder, through `parse`.
Status parse_file(const std::string& path, uint64_t bytes_max, auto parse) {
  const Result<std::string> text = checkpoint::read_text_file(path, bytes_max);
  return text.ok() ? parse(text.value()) : Status(text.refusal());
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
    return unsupported("activation_function is not relu, which is no OPT");
  if (config.value("enable_bias", json(true)) != true ||
      config.value("layer_norm_elementwise_affine", json(true)) != true)
    return unsupported("biases or norm weights are disabled, which is no feature of the published OPT");
  if (config.value("_remove_final_layer_norm", json(false)) == true)
    return unsupported("the final norm is removed, which is no feature of the published OPT");
  hints.num_heads = integer(config, "num_attention_heads");
  if (const auto before = config.find("do_layer_norm_before"); before != config.end() && before->is_boolean())
    hints.norm_before = before->get<bool>();
  hints.eos_id = integer(config, "eos_token_id");
  hints.bos_id = integer(config, "bos_token_id");
  hints.pad_id = integer(config, "pad_token_id");
  for (const char* size : {"hidden_size", "ffn_dim", "vocab_size", "num_hidden_layers", "max_position_embeddings"})
    if (const auto stated = integer(config, size)) hints.stated_sizes[size] = *stated;
  return ok_status();
}

Status check_huggingface_index(std::string_view text, const std::string& path,
                               const std::vector<std::string>& weights) {
  const Result<json> parsed = checkpoint::parse_json_strict(text, path, 8);
  if (!parsed.ok()) return parsed.refusal();
  const json& index = parsed.value();
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
    return refuse(ErrorCode::kDataCorrupt, path + ": the index holds no weight_map from tensors to files");
  std::set<std::string> known;
  for (const std::string& file : weights) known.insert(std::filesystem::path(file).filename().string());
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    if (!file.is_string())
      return refuse(ErrorCode::kDataCorrupt, path + ": the index maps " + tensor.substr(0, 80) + " to no file");
    const auto& name = file.get_ref<const std::string&>();
    if (!known.contains(name))
      return refuse(ErrorCode::kDataCorrupt,
                    path + ": the index names the file '" + name.substr(0, 80) + "', which is missing in the folder");
  }
  return ok_status();
}

Result<ForeignCheckpoint> open_huggingface(const std::string& folder, const std::vector<std::string>& weights) {
  ForeignCheckpoint foreign;
  foreign.kind = "huggingface";
  foreign.parts.emplace_back();
  const std::string config = folder + "/config.json";
  Status status = parse_file(config, kConfigBytesMax, [&](const std::string& text) {
    return parse_huggingface_config(text, config, foreign.hints);
  });
  if (!status.ok()) return status.refusal();
  const bool is_safetensors = weights.at(0).ends_with(".safetensors");
  const std::string index = folder + (is_safetensors ? "/model.safetensors" : "/pytorch_model.bin") + ".index.json";
  if (std::filesystem::exists(index)) {
    status = parse_file(index, kIndexBytesMax,
                        [&](const std::string& text) { return check_huggingface_index(text, index, weights); });
    if (!status.ok()) return status.refusal();
  }
  for (const std::string& path : weights) {
    status = is_safetensors ? add_safetensors(path, foreign) : add_bin(path, foreign);
    if (!status.ok()) return status.refusal();
  }
  foreign.layout = std::to_string(weights.size()) + (is_safetensors ? " safetensors" : " pytorch .bin") +
                   (weights.size() == 1 ? " file" : " files");
  return foreign;
}

}  // namespace optserve::converter
