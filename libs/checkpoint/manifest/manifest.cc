#include "checkpoint/manifest/manifest.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>

#include "base/input_check.h"
#include "base/limits.h"
#include "base/sha256.h"
#include "checkpoint/io/strict_json.h"
#include "checkpoint/manifest/layout.h"

namespace optserve::checkpoint {
namespace {

using nlohmann::json;

constexpr size_t kFilesMax = 4096;
constexpr size_t kTextMax = 1024;
constexpr std::string_view kNone = "none";  // not quantised

struct NamedScales {
  std::string_view name;
  quant::ScaleChoice choice;
};
constexpr NamedScales kScaleChoices[] = {{"max", quant::ScaleChoice::kMax}, {"mse", quant::ScaleChoice::kLeastError}};

std::string_view scales_name(quant::ScaleChoice choice) {
  return std::ranges::find(kScaleChoices, choice, &NamedScales::choice)->name;
}

Refusal bad_manifest(const std::string& what) { return refuse(ErrorCode::kDataCorrupt, "manifest.json: " + what); }

bool is_safe_name(const std::string& name) {
  return !name.empty() && name.size() <= 128 && name[0] != '.' && is_name(name);
}

// Checks that an object has exactly these keys.
Status check_keys(const json& object, const std::string& where, const std::vector<std::string_view>& keys) {
  if (!object.is_object()) return bad_manifest(where + " must be an object");
  for (std::string_view key : keys) {
    if (!object.contains(key)) return bad_manifest("key '" + std::string(key) + "' is missing in " + where);
  }
  for (const auto& [key, value] : object.items()) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      return bad_manifest("unknown key '" + key.substr(0, 80) + "' in " + where);
    }
  }
  return ok_status();
}

Result<std::string> text_of(const json& object, std::string_view key) {
  const json& value = object[std::string(key)];
  if (!value.is_string() || value.get_ref<const std::string&>().size() > kTextMax) {
    return bad_manifest("key '" + std::string(key) + "' must be a short text");
  }
  return value.get<std::string>();
}

Result<uint64_t> number_of(const json& object, std::string_view key, uint64_t max) {
  const json& value = object[std::string(key)];
  if (!value.is_number_unsigned() || value.get<uint64_t>() > max) {
    return bad_manifest("key '" + std::string(key) + "' must be a whole number up to " + std::to_string(max));
  }
  return value.get<uint64_t>();
}

Result<FileEntry> parse_file(const json& object) {
  if (Status status = check_keys(object, "an entry of files", {"name", "bytes", "sha256"}); !status.ok()) {
    return status.refusal();
  }
  const Result<std::string> name = text_of(object, "name");
  const Result<uint64_t> bytes = number_of(object, "bytes", INT64_MAX);
  const Result<std::string> digest = text_of(object, "sha256");
  if (!name.ok()) return name.refusal();
  if (!bytes.ok()) return bytes.refusal();
  if (!digest.ok()) return digest.refusal();
  if (!is_safe_name(name.value()) || name.value() == kManifestName) {
    return bad_manifest("'" + name.value().substr(0, 80) + "' is not a valid name for a file of a checkpoint");
  }
  if (!is_sha256_hex(digest.value())) {
    return bad_manifest("sha256 of " + name.value() + " is not 64 lower-case hex digits");
  }
  return FileEntry{name.value(), bytes.value(), digest.value()};
}

Result<Smoothing> parse_smoothing(const json& object) {
  if (Status status = check_keys(object, "source.smoothing", {"alpha", "ranges_sha256"}); !status.ok()) {
    return status.refusal();
  }
  const json& alpha = object["alpha"];
  if (!alpha.is_number() || !(alpha.get<double>() >= 0 && alpha.get<double>() <= 1)) {
    return bad_manifest("key 'alpha' must be a number from 0 to 1");
  }
  const Result<std::string> digest = text_of(object, "ranges_sha256");
  if (!digest.ok()) return digest.refusal();
  if (!is_sha256_hex(digest.value())) return bad_manifest("key 'ranges_sha256' must be 64 lower-case hex digits");
  return Smoothing{alpha.get<double>(), digest.value()};
}

Result<SourceInfo> parse_source(const json& object) {
  std::vector<std::string_view> keys = {"layout", "files"};
  if (object.is_object() && object.contains("smoothing")) keys.push_back("smoothing");
  if (Status status = check_keys(object, "source", keys); !status.ok()) return status.refusal();
  const Result<std::string> layout = text_of(object, "layout");
  if (!layout.ok()) return layout.refusal();
  SourceInfo source{layout.value(), {}};
  if (object.contains("smoothing")) {
    const Result<Smoothing> smoothing = parse_smoothing(object["smoothing"]);
    if (!smoothing.ok()) return smoothing.refusal();
    source.smoothing = smoothing.value();
  }
  const json& files = object["files"];
  if (!files.is_array() || files.size() > kFilesMax) return bad_manifest("source.files must be a list");
  for (const json& entry : files) {
    if (Status status = check_keys(entry, "an entry of source.files", {"name", "bytes", "index_sha256"});
        !status.ok()) {
      return status.refusal();
    }
    const Result<std::string> name = text_of(entry, "name");
    const Result<uint64_t> bytes = number_of(entry, "bytes", INT64_MAX);
    const Result<std::string> digest = text_of(entry, "index_sha256");
    if (!name.ok() || !bytes.ok() || !digest.ok()) return bad_manifest("an entry of source.files is malformed");
    source.files.push_back({name.value(), bytes.value(), digest.value()});
  }
  return source;
}

Status parse_tokenizer(const json& object, Manifest& manifest) {
  if (object.is_null()) return ok_status();
  const bool has_added = object.is_object() && object.contains("added");
  std::vector<std::string_view> keys = {"vocab", "merges"};
  if (has_added) keys.push_back("added");
  if (Status status = check_keys(object, "tokenizer", keys); !status.ok()) return status;
  if (object["vocab"] != kVocabName || object["merges"] != kMergesName ||
      (has_added && object["added"] != kAddedName)) {
    return bad_manifest("tokenizer must name " + std::string(kVocabName) + " and " + std::string(kMergesName) +
                        ", and may name " + std::string(kAddedName));
  }
  if (has_added) manifest.added_file = kAddedName;
  manifest.vocab_file = kVocabName;
  manifest.merges_file = kMergesName;
  return ok_status();
}

// The list of files must be the S shards in order and then what `tokenizer` names, each once.
Status parse_files(const json& list, Manifest& manifest) {
  if (!list.is_array() || list.size() > kFilesMax) return bad_manifest("files must be a list");
  std::vector<std::string> expected;
  for (int shard = 0; shard < manifest.shards; ++shard) expected.push_back(shard_file_name(shard, manifest.shards));
  if (!manifest.vocab_file.empty()) expected.insert(expected.end(), {manifest.vocab_file, manifest.merges_file});
  if (!manifest.added_file.empty()) expected.push_back(manifest.added_file);
  if (list.size() != expected.size()) {
    return bad_manifest("files lists " + std::to_string(list.size()) + " files, expected " +
                        std::to_string(expected.size()) + " for " + std::to_string(manifest.shards) + " shards");
  }
  for (size_t i = 0; i < expected.size(); ++i) {
    Result<FileEntry> entry = parse_file(list[i]);
    if (!entry.ok()) return entry.refusal();
    if (entry.value().name != expected[i]) {
      return bad_manifest("file " + std::to_string(i) + " is '" + entry.value().name + "', expected '" + expected[i] +
                          "'");
    }
    manifest.files.push_back(std::move(entry).value());
  }
  return ok_status();
}

Status check_format(const json& root) {
  if (!root.is_object() || !root.contains("format") || root["format"] != kFormatName) {
    return bad_manifest("its format is not '" + std::string(kFormatName) + "'");
  }
  if (!root.contains("format_version") || root["format_version"] != kFormatVersion) {
    return refuse(ErrorCode::kUnsupportedFormat,
                  "manifest.json: format_version is " +
                      (root.contains("format_version") ? root["format_version"].dump().substr(0, 40) : "missing") +
                      ", this build reads " + std::to_string(kFormatVersion));
  }
  std::vector<std::string_view> keys = {"format",       "format_version", "created_by", "config", "dtype",
                                        "quantisation", "shards",         "tokenizer",  "files",  "source"};
  if (root.contains("quantisation") && root["quantisation"] != kNone) keys.push_back("scales");
  return check_keys(root, "the manifest", keys);
}

Status parse_quantisation(const json& root, Manifest& manifest) {
  if (root["quantisation"] == kNone) return ok_status();
  for (const NamedScales& scales : kScaleChoices) {
    if (root["scales"] != scales.name) continue;
    for (const quant::QuantFormatInfo& row : quant::quant_formats()) {
      const quant::Quantisation found{row.format, scales.choice};
      if (root["quantisation"] != row.name || !is_known(found)) continue;
      manifest.quantisation = found;
      return ok_status();
    }
  }
  return refuse(ErrorCode::kUnsupportedFormat, "manifest.json: quantisation is " +
                                                   root["quantisation"].dump().substr(0, 40) + " with scales " +
                                                   root["scales"].dump().substr(0, 40) +
                                                   R"(, expected "none", or "int8", "fp8" or "int4" with "max")"
                                                   R"(, or "int8" with "mse")");
}

}  // namespace

ShardPlan shard_plan(const Manifest& manifest) {
  return {manifest.config, manifest.dtype, manifest.shards, manifest.quantisation};
}

std::string shard_file_name(int shard, int shards) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "shard-%03d-of-%03d.safetensors", shard, shards);
  return text.data();
}

std::string manifest_text(const Manifest& manifest) {
  nlohmann::ordered_json root;
  root["format"] = kFormatName;
  root["format_version"] = kFormatVersion;
  root["created_by"] = manifest.created_by;
  root["config"] = model_spec::to_json(manifest.config);
  root["dtype"] = dtype_name(manifest.dtype);
  root["quantisation"] = manifest.quantisation ? info(manifest.quantisation->format).name : kNone;
  if (manifest.quantisation) root["scales"] = scales_name(manifest.quantisation->scales);
  root["shards"] = manifest.shards;
  root["tokenizer"] = nullptr;
  if (!manifest.vocab_file.empty()) {
    root["tokenizer"] = {{"vocab", manifest.vocab_file}, {"merges", manifest.merges_file}};
  }
  if (!manifest.added_file.empty()) root["tokenizer"]["added"] = manifest.added_file;
  root["files"] = nlohmann::ordered_json::array();
  for (const FileEntry& file : manifest.files) {
    root["files"].push_back({{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  }
  root["source"] = {{"layout", manifest.source.layout}, {"files", nlohmann::ordered_json::array()}};
  for (const SourceFile& file : manifest.source.files) {
    root["source"]["files"].push_back(
        {{"name", file.name}, {"bytes", file.bytes}, {"index_sha256", file.index_sha256}});
  }
  if (const auto& smoothing = manifest.source.smoothing) {
    root["source"]["smoothing"] = {{"alpha", smoothing->alpha}, {"ranges_sha256", smoothing->ranges_sha256}};
  }
  return root.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<Manifest> parse_manifest(std::string_view text) {
  if (text.size() > kManifestBytesMax) return bad_manifest("larger than 4 MiB");
  Result<json> parsed = parse_json_strict(text, kManifestName, 6);
  if (!parsed.ok()) return parsed.refusal();
  const json& root = parsed.value();
  if (Status status = check_format(root); !status.ok()) return status.refusal();
  Manifest manifest;
  Result<model_spec::OptConfig> config = model_spec::config_from_json(root["config"]);
  if (!config.ok()) return bad_manifest(config.refusal().message);
  manifest.config = std::move(config).value();
  const Result<std::string> created_by = text_of(root, "created_by");
  if (!created_by.ok()) return created_by.refusal();
  manifest.created_by = created_by.value();
  const Result<std::string> dtype = text_of(root, "dtype");
  const auto known = dtype.ok() ? parse_dtype(dtype.value()) : std::nullopt;
  if (!known || !is_floating(*known) || *known == DType::kF64) {
    return bad_manifest("dtype is " + root["dtype"].dump().substr(0, 40) + ", expected F32, F16 or BF16");
  }
  manifest.dtype = *known;
  if (Status status = parse_quantisation(root, manifest); !status.ok()) return status.refusal();
  const Result<uint64_t> shards = number_of(root, "shards", limits::kWorldSizeMax);
  if (!shards.ok()) return shards.refusal();
  manifest.shards = static_cast<int>(shards.value());
  if (Status status = check_shards(shard_plan(manifest)); !status.ok()) return bad_manifest(status.refusal().message);
  if (Status status = parse_tokenizer(root["tokenizer"], manifest); !status.ok()) return status.refusal();
  if (Status status = parse_files(root["files"], manifest); !status.ok()) return status.refusal();
  Result<SourceInfo> source = parse_source(root["source"]);
  if (!source.ok()) return source.refusal();
  manifest.source = std::move(source).value();
  return manifest;
}

}  // namespace optserve::checkpoint
