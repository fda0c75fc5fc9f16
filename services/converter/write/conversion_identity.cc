#include "converter/write/conversion_identity.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/hex.h"
#include "base/sha256.h"
#include "checkpoint/manifest/model_identity.h"

namespace optserve::converter {
namespace {

namespace fs = std::filesystem;
using checkpoint::FileEntry;
using checkpoint::Manifest;
using checkpoint::SourceFile;
using checkpoint::SourceInfo;

bool is_same_source(const SourceInfo& a, const SourceInfo& b) {
  const auto is_same_file = [](const SourceFile& x, const SourceFile& y) {
    return x.name == y.name && x.bytes == y.bytes && x.index_sha256 == y.index_sha256 && !x.index_sha256.empty();
  };
  return a.layout == b.layout && a.smoothing == b.smoothing &&
         std::equal(a.files.begin(), a.files.end(), b.files.begin(), b.files.end(), is_same_file);
}

bool lists(const Manifest& manifest, std::string_view name, const std::string& text) {
  const std::string digest = to_hex(sha256(text));
  return std::any_of(manifest.files.begin(), manifest.files.end(),
                     [&](const FileEntry& entry) { return entry.name == name && entry.sha256 == digest; });
}

bool is_whole(const std::string& folder, const Manifest& manifest) {
  return std::all_of(manifest.files.begin(), manifest.files.end(), [&](const FileEntry& entry) {
    std::error_code error;
    return fs::file_size(fs::path(folder) / entry.name, error) == entry.bytes && !error;
  });
}

}  // namespace

std::string conversion_record(const ConversionIdentity& identity) {
  const checkpoint::ShardPlan& plan = identity.plan;
  nlohmann::ordered_json root;
  root["program"] = identity.program;
  root["format_version"] = checkpoint::kFormatVersion;
  root["config"] = model_spec::to_json(plan.config);
  root["dtype"] = dtype_name(plan.dtype);
  root["quantisation"] = plan.quantisation ? quant::quantisation_name(*plan.quantisation) : "none";
  root["shards"] = plan.shards;
  root["tokenizer"] = nullptr;
  if (identity.tokenizer) {
    root["tokenizer"] = {{"vocab", to_hex(sha256(identity.tokenizer->vocab))},
                         {"merges", to_hex(sha256(identity.tokenizer->merges))},
                         {"added", to_hex(sha256(identity.tokenizer->added))}};
  }
  root["allow_nonfinite"] = identity.allow_nonfinite;
  root["check_source"] = identity.check_source;
  root["source"] = {{"layout", identity.source.layout}};
  if (const auto& smoothing = identity.source.smoothing) {
    root["source"]["smoothing"] = {{"alpha", smoothing->alpha}, {"ranges_sha256", smoothing->ranges_sha256}};
  }
  for (const checkpoint::SourceFile& file : identity.source.files) {
    root["source"]["files"].push_back(
        {{"name", file.name}, {"bytes", file.bytes}, {"index_sha256", file.index_sha256}});
  }
  return root.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

bool is_output_of(const std::string& folder, const ConversionIdentity& wanted) {
  const checkpoint::ShardPlan& plan = wanted.plan;
  const std::optional<TokenizerFiles>& tokenizer = wanted.tokenizer;
  std::error_code ignored;
  if (!fs::exists(fs::path(folder) / checkpoint::kManifestName, ignored)) return false;
  const Result<checkpoint::ModelIdentity> found = checkpoint::read_model_identity(folder);
  if (!found.ok()) return false;
  const Manifest& manifest = found.value().manifest;
  if (manifest.config != plan.config || manifest.dtype != plan.dtype || manifest.shards != plan.shards) return false;
  if (manifest.quantisation != plan.quantisation) return false;
  if (!is_same_source(manifest.source, wanted.source)) return false;
  if (manifest.vocab_file.empty() != !tokenizer) return false;
  if (tokenizer && !(lists(manifest, manifest.vocab_file, tokenizer->vocab) &&
                     lists(manifest, manifest.merges_file, tokenizer->merges) &&
                     manifest.added_file.empty() == tokenizer->added.empty() &&
                     (tokenizer->added.empty() || lists(manifest, manifest.added_file, tokenizer->added)))) {
    return false;
  }
  return is_whole(folder, manifest);
}

}  // namespace optserve::converter
