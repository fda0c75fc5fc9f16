#include "checkpoint/manifest/model_identity.h"

#include <algorithm>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

#include "base/hex.h"
#include "base/sha256.h"
#include "checkpoint/io/byte_source.h"

namespace optserve::checkpoint {
namespace {

constexpr uint64_t kListedFileBytesMax = 64 << 20;

const FileEntry* find_file(const Manifest& manifest, std::string_view name) {
  const auto found = std::find_if(manifest.files.begin(), manifest.files.end(),
                                  [&](const FileEntry& entry) { return entry.name == name; });
  return found == manifest.files.end() ? nullptr : &*found;
}

std::string read_all(const InputFile& file) {
  std::string text(file.size(), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}  // namespace

Result<ModelIdentity> read_model_identity(const std::string& folder) {
  const std::string path = (std::filesystem::path(folder) / kManifestName).string();
  if (std::error_code code; !std::filesystem::exists(path, code)) {
    return refuse(ErrorCode::kUnsupportedFormat,
                  folder + " has no manifest.json: it is not a finished checkpoint of 'optserve convert'");
  }
  Result<std::unique_ptr<InputFile>> file = InputFile::open(path);
  if (!file.ok()) return file.refusal();
  if (file.value()->size() > kManifestBytesMax) {
    return refuse(ErrorCode::kDataCorrupt, path + " has " + std::to_string(file.value()->size()) +
                                               " bytes, expected at most " + std::to_string(kManifestBytesMax));
  }
  const std::string text = read_all(*file.value());
  Result<Manifest> manifest = parse_manifest(text);
  if (!manifest.ok()) return refuse(manifest.refusal().code, folder + ": " + manifest.refusal().message);
  ModelIdentity identity;
  identity.manifest = std::move(manifest).value();
  identity.manifest_digest = to_hex(sha256(text));
  identity.vocabulary_digest = vocabulary_digest(identity.manifest);
  return identity;
}

std::string vocabulary_digest(const Manifest& manifest) {
  const FileEntry* vocab = find_file(manifest, manifest.vocab_file);
  const FileEntry* merges = find_file(manifest, manifest.merges_file);
  if (vocab == nullptr || merges == nullptr) return {};
  std::string lines;
  for (const FileEntry* entry : {vocab, merges, find_file(manifest, manifest.added_file)}) {
    if (entry != nullptr) lines += entry->name + " " + std::to_string(entry->bytes) + " " + entry->sha256 + "\n";
  }
  return to_hex(sha256(lines));
}

Result<std::string> read_listed_file(const std::string& folder, const Manifest& manifest, const std::string& name) {
  const FileEntry* entry = find_file(manifest, name);
  if (entry == nullptr) return refuse(ErrorCode::kDataCorrupt, folder + ": the manifest lists no file '" + name + "'");
  const std::string path = (std::filesystem::path(folder) / name).string();
  Result<std::unique_ptr<InputFile>> file = InputFile::open(path);
  if (!file.ok()) return file.refusal();
  if (file.value()->size() != entry->bytes || entry->bytes > kListedFileBytesMax) {
    return refuse(ErrorCode::kDataCorrupt, path + " has " + std::to_string(file.value()->size()) +
                                               " bytes, the manifest says " + std::to_string(entry->bytes));
  }
  std::string bytes = read_all(*file.value());
  if (const std::string found = to_hex(sha256(bytes)); found != entry->sha256) {
    return refuse(ErrorCode::kDataCorrupt, path + " has SHA-256 " + found + ", the manifest says " + entry->sha256);
  }
  return bytes;
}

}  // namespace optserve::checkpoint
