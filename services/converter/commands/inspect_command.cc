#include "converter/commands/inspect_command.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>

#include "checkpoint/reader.h"
#include "converter/commands/reader_settings.h"
#include "converter/commands/terminal.h"
#include "converter/reader/caged_model.h"
#include "converter/write/convert.h"

namespace optserve::converter {
namespace {

using nlohmann::json;

json tensor_entry(const std::string& name, DType dtype, const std::vector<int64_t>& shape, size_t part) {
  return {{"name", name}, {"dtype", dtype_name(dtype)}, {"shape", shape}, {"part", part}};
}

void count_dtype(DType dtype, json& out) {
  json& count = out["dtypes"][std::string(dtype_name(dtype))];
  count = count.is_null() ? 1 : count.get<int>() + 1;
}

void describe_config(const model_spec::OptConfig& config, json& out) {
  out["config"] = model_spec::to_json(config);
  out["parameters"] = model_spec::parameter_count(config);
  out["published_parameters"] = model_spec::published_parameter_count(config);
  out["legal_tensor_parallel"] = model_spec::legal_worlds(config);
}

Result<json> inspect_ours(const std::string& path) {
  const Result<checkpoint::CheckpointReader> opened = checkpoint::CheckpointReader::open(path);
  if (!opened.ok()) return opened.refusal();
  const checkpoint::CheckpointReader& reader = opened.value();
  const checkpoint::Manifest& manifest = reader.manifest();
  json out = {{"kind", "optserve"},
              {"path", path},
              {"layout", std::to_string(manifest.shards) + " shards"},
              {"shards", manifest.shards},
              {"quantisation", manifest.quantisation ? quant::quantisation_name(*manifest.quantisation) : "none"},
              {"created_by", manifest.created_by},
              {"source", manifest.source.layout},
              {"tokenizer", !manifest.vocab_file.empty()},
              {"files", json::array()},
              {"tensors", json::array()},
              {"warnings", json::array()}};
  if (const auto& smoothing = manifest.source.smoothing) {
    out["smoothing"] = {{"alpha", smoothing->alpha}, {"ranges_sha256", smoothing->ranges_sha256}};
  }
  describe_config(reader.config(), out);
  out["serves"] = json::array();
  for (int world = 1; world <= manifest.shards; ++world) {
    if (manifest.shards % world == 0) out["serves"].push_back(world);
  }
  for (const checkpoint::FileEntry& file : manifest.files) {
    out["files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  }
  out["dtypes"] = json::object();
  for (const checkpoint::StoredTensor& stored :
       checkpoint::shard_tensors({reader.config(), reader.dtype(), 1, manifest.quantisation})) {
    out["tensors"].push_back(tensor_entry(stored.name, stored.dtype, stored.shape, 0));
    count_dtype(stored.dtype, out);
  }
  return out;
}

Result<json> inspect_foreign(const std::string& path, const ReaderSettings& reader) {
  const Result<CagedModel> opened = CagedModel::open({.input = path, .name = "model", .for_inspection = true}, reader);
  if (!opened.ok()) return opened.refusal();
  const ModelSummary& summary = opened.value().summary();
  json out = {{"kind", summary.kind},     {"path", path},
              {"layout", summary.layout}, {"warnings", summary.warnings},
              {"files", json::array()},   {"tensors", json::array()},
              {"dtypes", json::object()}, {"tokenizer", summary.has_tokenizer}};
  for (const checkpoint::SourceFile& file : summary.files) {
    out["files"].push_back({{"name", file.name}, {"bytes", file.bytes}});
  }
  for (const ForeignEntry& tensor : summary.tensors) {
    out["tensors"].push_back(tensor_entry(tensor.name, tensor.dtype, tensor.shape, tensor.part));
    count_dtype(tensor.dtype, out);
  }
  if (summary.config) {
    describe_config(*summary.config, out);
    out["default_shards"] = default_shards(*summary.config);
  }
  if (!summary.problem.empty()) out["problem"] = summary.problem;
  return out;
}

constexpr std::string_view kProgram = "optserve: ";  // begins what exit_status_of() says

std::string text_or_json(const json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

std::string human_bytes(uint64_t bytes) {
  return bytes >= 10 << 20 ? std::to_string(bytes >> 20) + " MiB" : std::to_string(bytes) + " bytes";
}

}  // namespace

Result<json> inspect(const std::string& path, const ReaderSettings& reader) {
  std::error_code ignored;
  const bool is_ours = std::filesystem::exists(path + "/" + std::string(checkpoint::kManifestName), ignored);
  return is_ours ? inspect_ours(path) : inspect_foreign(path, reader);
}

std::string inspect_text(const json& description, bool with_tensors) {
  std::string text;
  const auto line = [&](const std::string& name, const std::string& value) {
    text += name + std::string(name.size() < 16 ? 16 - name.size() : 1, ' ') + value + "\n";
  };
  for (const char* key : {"path", "kind", "layout", "source", "created_by", "quantisation", "smoothing"}) {
    if (description.contains(key)) line(key, text_or_json(description[key]));
  }
  if (description.contains("config")) {
    const json& config = description["config"];
    line("model", std::to_string(config["num_layers"].get<int64_t>()) + " layers, hidden " + config["hidden"].dump() +
                      ", " + config["num_heads"].dump() + " heads, ffn " + config["ffn"].dump() + ", vocabulary " +
                      config["vocab"].dump() + ", " + config["max_positions"].dump() + " positions, " +
                      (config["norm_before"] == true ? "pre-norm" : "post-norm"));
    line("parameters", description["parameters"].dump() + " (" + description["published_parameters"].dump() +
                           " with the two unused position rows)");
    line("legal groups", description["legal_tensor_parallel"].dump());
  }
  if (description.contains("serves")) line("serves groups", description["serves"].dump());
  line("types", description["dtypes"].dump());
  line("tokenizer", description["tokenizer"] == true ? "yes" : "no");
  for (const json& file : description["files"]) {
    line("file", file["name"].get<std::string>() + ", " + human_bytes(file["bytes"].get<uint64_t>()));
  }
  if (with_tensors) {
    for (const json& tensor : description["tensors"]) {
      line("tensor", tensor["name"].get<std::string>() + " " + tensor["dtype"].get<std::string>() +
                         tensor["shape"].dump() + (tensor["part"] == 0 ? "" : " in part " + tensor["part"].dump()));
    }
  }
  for (const json& warning : description["warnings"]) line("warning", warning.get<std::string>());
  if (description.contains("problem")) line("problem", description["problem"].get<std::string>());
  return text;
}

int run_inspect(const conversion::InspectCommand& command, std::ostream& out, std::ostream& err) {
  const auto run = [&]() -> Result<int> {
    const Result<ReaderSettings> reader = settings_of(command.reader);
    if (!reader.ok()) return reader.refusal();
    const Result<json> description = inspect(command.path, reader.value());
    if (!description.ok()) return description.refusal();
    if (command.as_json) {
      out << description.value().dump(2, ' ', false, json::error_handler_t::replace) << "\n";
    } else {
      out << inspect_text(description.value(), command.with_tensors);
    }
    return description.value().contains("problem") ? 1 : 0;
  };
  if (!command.as_json) return exit_status_of(run, err);
  // A program that asked for JSON always finds an object there.
  std::string code = "internal";
  const auto noting_code = [&]() -> Result<int> {
    Result<int> ended = run();
    if (!ended.ok()) code = error_code_name(ended.refusal().code);
    return ended;
  };
  std::ostringstream said;
  const int status = exit_status_of(noting_code, said);
  std::string message = said.str();
  if (message.empty()) return status;
  if (message.starts_with(kProgram)) message.erase(0, kProgram.size());
  if (message.ends_with('\n')) message.pop_back();
  const json failure = {{"error", {{"code", code}, {"message", message}, {"exit_status", status}}}};
  out << failure.dump(-1, ' ', false, json::error_handler_t::replace) << "\n";
  return status;
}

}  // namespace optserve::converter
