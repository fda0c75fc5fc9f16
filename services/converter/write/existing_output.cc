#include "converter/write/existing_output.h"

#include <algorithm>
#include <filesystem>

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
  std::string digest;
  for (const uint8_t byte : sha256(text)) {
    constexpr char kDigits[] = "0123456789abcdef";
    digest += kDigits[byte >> 4];
    digest += kDigits[byte & 15];
  }
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

bool is_output_of(const std::string& folder, const checkpoint::ShardPlan& plan, const SourceInfo& source,
                  const std::optional<TokenizerFiles>& tokenizer) {
  std::error_code ignored;
  if (!fs::exists(fs::path(folder) / "manifest.json", ignored)) return false;
  const Result<checkpoint::ModelIdentity> identity = checkpoint::read_model_identity(folder);
  if (!identity.ok()) return false;
  const Manifest& manifest = identity.value().manifest;
  if (manifest.config != plan.config || manifest.dtype != plan.dtype || manifest.shards != plan.shards) return false;
  if (manifest.quantisation != plan.quantisation) return false;
  if (!is_same_source(manifest.source, source)) return false;
  if (manifest.vocab_file.empty() != !tokenizer) return false;
  if (tokenizer && !(lists(manifest, manifest.vocab_file, tokenizer->vocab) &&
                     lists(manifest, manifest.merges_file, tokenizer->merges))) {
    return false;
  }
  return is_whole(folder, manifest);
}

}  // namespace optserve::converter
