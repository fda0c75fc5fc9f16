#include "converter/vocabulary/tokenizer_files.h"

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "checkpoint/io/byte_source.h"
#include "checkpoint/io/strict_json.h"

namespace optserve::converter {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kFileBytesMax = 64 << 20;

Result<std::optional<TokenizerFiles>> load(const std::string& vocab_path, const std::string& merges_path) {
  Result<std::string> vocab = checkpoint::read_text_file(vocab_path, kFileBytesMax);
  if (!vocab.ok()) return vocab.refusal();
  Result<std::string> merges = checkpoint::read_text_file(merges_path, kFileBytesMax);
  if (!merges.ok()) return merges.refusal();
  const Result<nlohmann::json> json = checkpoint::parse_json_strict(vocab.value(), vocab_path, 1);
  if (!json.ok()) return json.refusal();
  if (!json.value().is_object() || json.value().empty()) {
    return refuse(ErrorCode::kDataCorrupt, vocab_path + ": expected an object that maps tokens to ids");
  }
  TokenizerFiles files{std::move(vocab).value(), std::move(merges).value(), 0};
  for (const auto& [token, id] : json.value().items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= limits::kVocabularyMax) {
      return refuse(ErrorCode::kDataCorrupt, vocab_path + ": id " + id.dump().substr(0, 40) + " is not a token id");
    }
    files.tokens = std::max<int64_t>(files.tokens, id.get<int64_t>() + 1);
  }
  return std::optional<TokenizerFiles>(std::move(files));
}

}  // namespace

Result<std::optional<TokenizerFiles>> find_tokenizer(const std::string& input, const std::string& vocab_path,
                                                     const std::string& merges_path) {
  if (vocab_path.empty() != merges_path.empty()) {
    return refuse(ErrorCode::kBadRequest, "give both the vocabulary and the merges file, or neither");
  }
  if (!vocab_path.empty()) return load(vocab_path, merges_path);
  std::error_code ignored;
  const fs::path absolute = fs::absolute(input, ignored);
  const fs::path folder = fs::is_directory(absolute, ignored) ? absolute : absolute.parent_path();
  constexpr std::array<std::pair<const char*, const char*>, 2> kNames = {
      {{"gpt2-vocab.json", "gpt2-merges.txt"}, {"vocab.json", "merges.txt"}}};
  for (const fs::path& place : {folder, (folder / ".").lexically_normal().parent_path().parent_path()}) {
    for (const auto& [vocab, merges] : kNames) {
      if (fs::exists(place / vocab, ignored) && fs::exists(place / merges, ignored)) {
        return load((place / vocab).string(), (place / merges).string());
      }
    }
  }
  return std::optional<TokenizerFiles>();
}

}  // namespace optserve::converter
