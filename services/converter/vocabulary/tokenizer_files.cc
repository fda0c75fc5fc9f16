#include "converter/vocabulary/tokenizer_files.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/limits.h"
#include "checkpoint/io/byte_source.h"
#include "checkpoint/io/strict_json.h"
#include "converter/vocabulary/tokenizer_settings.h"

namespace optserve::converter {
namespace {

namespace fs = std::filesystem;
using tokenizer::AddedToken;

constexpr uint64_t kFileBytesMax = 64 << 20;
constexpr TokenId kFirstOrdinaryId = 4;  // after <s>, <pad>, </s> and <unk>, which no text gives unless asked for

using Vocabulary = std::map<std::string, TokenId>;

Result<Vocabulary> parse_vocabulary(const std::string& text, const std::string& path) {
  const Result<nlohmann::json> json = checkpoint::parse_json_strict(text, path, 1);
  if (!json.ok()) return json.refusal();
  if (!json.value().is_object() || json.value().empty()) {
    return refuse(ErrorCode::kDataCorrupt, path + ": expected an object that maps tokens to ids");
  }
  Vocabulary ids;
  for (const auto& [token, id] : json.value().items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= limits::kVocabularyMax) {
      return refuse(ErrorCode::kDataCorrupt, path + ": id " + id.dump().substr(0, 40) + " is not a token id");
    }
    ids[token] = id.get<TokenId>();
  }
  return ids;
}

// The settings that lie in `folder`.
Status read_settings_in(const fs::path& folder, TokenizerSettings& found) {
  using Parse = Status (*)(std::string_view, const std::string&, TokenizerSettings&);
  constexpr std::array<std::pair<const char*, Parse>, 3> kFiles = {
      {{"tokenizer_config.json", parse_tokenizer_config},
       {"added_tokens.json", parse_added_tokens_json},
       {"special_tokens_map.json", parse_special_tokens_map}}};
  for (const auto& [name, parse] : kFiles) {
    const std::string path = (folder / name).string();
    std::error_code ignored;
    if (!fs::exists(path, ignored)) continue;
    const Result<std::string> text = checkpoint::read_text_file(path, kFileBytesMax);
    if (!text.ok()) return text.refusal();
    if (Status status = parse(text.value(), path, found); !status.ok()) return status;
  }
  return ok_status();
}

// Joins the vocabulary and the added tokens.
class Assembler {
 public:
  Assembler(const TokenizerPlace& place, TokenizerSettings settings) : place_(place), settings_(std::move(settings)) {}

  Result<TokenizerFiles> run(std::string vocab, std::string merges, const std::string& path) {
    Result<Vocabulary> parsed = parse_vocabulary(vocab, path);
    if (!parsed.ok()) return parsed.refusal();
    ids_ = std::move(parsed).value();
    files_.vocab = std::move(vocab);
    files_.merges = std::move(merges);
    if (Status status = add_to_vocabulary(path); !status.ok()) return status.refusal();
    for (const auto& [token, id] : ids_) files_.tokens = std::max<int64_t>(files_.tokens, id + 1);
    list_added();
    files_.bos_id = id_of(settings_.bos_token);
    files_.eos_id = id_of(settings_.eos_token);
    files_.leads_with_bos = settings_.leads_with_bos.value_or(true);
    files_.notes = std::move(settings_.notes);
    return std::move(files_);
  }

 private:
  TokenId id_of(const std::optional<std::string>& token) const {
    const auto found = token ? ids_.find(*token) : ids_.end();
    return found == ids_.end() ? -1 : found->second;
  }

  Status add_to_vocabulary(const std::string& path) {
    std::map<TokenId, std::string> spellings;
    for (const auto& [token, id] : ids_) spellings[id] = token;
    const size_t before = ids_.size();
    for (const auto& [content, token] : settings_.added) {
      const auto known = ids_.find(content);
      const auto taken = spellings.find(token.id);
      const bool agrees = known == ids_.end() ? taken == spellings.end() : known->second == token.id;
      if (!agrees) {
        return refuse(ErrorCode::kDataCorrupt, path + ": the added token '" + content + "' has the id " +
                                                   std::to_string(token.id) + ", but the vocabulary has " +
                                                   (known == ids_.end() ? "'" + taken->second + "' there"
                                                                        : "the id " + std::to_string(known->second)));
      }
      ids_[content] = token.id;
      spellings[token.id] = content;
    }
    if (ids_.size() == before) return ok_status();
    auto all = nlohmann::ordered_json::object();
    for (const auto& [id, token] : spellings) all[token] = id;
    files_.vocab = all.dump();
    return ok_status();
  }

  // Special tokens that no file gives an id are looked up in the vocabulary.
  void list_added() {
    for (const std::string& content : settings_.special) {
      const auto known = ids_.find(content);
      if (known == ids_.end()) {
        const std::string note = "the tokenizer's special token '" + content + "' has no id and is left out";
        if (std::ranges::find(settings_.notes, note) == settings_.notes.end()) settings_.notes.push_back(note);
        continue;
      }
      AddedToken& token = settings_.added[content];
      token.id = known->second;
      token.content = content;
      token.special = true;
    }
    using conversion::PromptTokens;
    std::vector<AddedToken> list;
    for (const auto& [content, token] : settings_.added) {
      if (token.id < kFirstOrdinaryId && place_.prompt_tokens != PromptTokens::kAll) continue;
      list.push_back(token);
      list.back().recognised = place_.prompt_tokens != PromptTokens::kNone;
    }
    std::ranges::sort(list, {}, &AddedToken::id);
    if (!list.empty()) files_.added = tokenizer::added_tokens_text(list);
  }

  const TokenizerPlace& place_;
  TokenizerSettings settings_;
  Vocabulary ids_;
  TokenizerFiles files_;
};

Result<std::optional<TokenizerFiles>> load(const TokenizerPlace& place, const fs::path& vocab_path,
                                           const fs::path& merges_path) {
  Result<std::string> vocab = checkpoint::read_text_file(vocab_path.string(), kFileBytesMax);
  if (!vocab.ok()) return vocab.refusal();
  Result<std::string> merges = checkpoint::read_text_file(merges_path.string(), kFileBytesMax);
  if (!merges.ok()) return merges.refusal();
  TokenizerSettings settings;
  const fs::path folder = vocab_path.has_parent_path() ? vocab_path.parent_path() : fs::path(".");
  if (Status status = read_settings_in(folder, settings); !status.ok()) return status.refusal();
  Result<TokenizerFiles> files = Assembler(place, std::move(settings))
                                     .run(std::move(vocab).value(), std::move(merges).value(), vocab_path.string());
  if (!files.ok()) return files.refusal();
  return std::optional(std::move(files).value());
}

Result<std::optional<TokenizerFiles>> load_tokenizer_json(const TokenizerPlace& place, const fs::path& path) {
  const Result<std::string> text = checkpoint::read_text_file(path.string(), kFileBytesMax);
  if (!text.ok()) return text.refusal();
  TokenizerSettings settings;
  Result<TokenizerTables> tables = parse_tokenizer_json(text.value(), path.string(), settings);
  if (!tables.ok()) return tables.refusal();
  if (Status status = read_settings_in(path.parent_path(), settings); !status.ok()) return status.refusal();
  Result<TokenizerFiles> files =
      Assembler(place, std::move(settings))
          .run(std::move(tables.value().vocab), std::move(tables.value().merges), path.string());
  if (!files.ok()) return files.refusal();
  return std::optional(std::move(files).value());
}

// What lies beside the checkpoint or above it.
Result<std::optional<TokenizerFiles>> search(const TokenizerPlace& place) {
  std::error_code ignored;
  const fs::path absolute = fs::absolute(place.input, ignored);
  const fs::path folder = fs::is_directory(absolute, ignored) ? absolute : absolute.parent_path();
  constexpr std::array<std::pair<const char*, const char*>, 2> kNames = {
      {{"gpt2-vocab.json", "gpt2-merges.txt"}, {"vocab.json", "merges.txt"}}};
  for (const fs::path& at : {folder, (folder / ".").lexically_normal().parent_path().parent_path()}) {
    for (const auto& [vocab, merges] : kNames) {
      if (fs::exists(at / vocab, ignored) && fs::exists(at / merges, ignored)) {
        return load(place, at / vocab, at / merges);
      }
    }
    if (fs::exists(at / "tokenizer.json", ignored)) return load_tokenizer_json(place, at / "tokenizer.json");
  }
  return std::optional<TokenizerFiles>();
}

// The lines of a merges file without the one that says its version and without its end.
std::string_view merges_of(const TokenizerFiles& files) {
  std::string_view text = files.merges;
  if (text.starts_with("#version")) text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

// How the tokenizer that was given differs from the checkpoint's own, in words; empty if it does not.
std::string difference(const TokenizerFiles& given, const TokenizerFiles& own, const std::string& path) {
  const Result<Vocabulary> given_ids = parse_vocabulary(given.vocab, path), own_ids = parse_vocabulary(own.vocab, path);
  if (!given_ids.ok() || !own_ids.ok()) return "";
  std::map<TokenId, std::string> spellings;
  for (const auto& [token, id] : given_ids.value()) spellings[id] = token;
  std::map<TokenId, std::string> others;  // the checkpoint's, where they differ
  for (const auto& [token, id] : own_ids.value()) {
    const auto found = spellings.find(id);
    if (found == spellings.end() || found->second != token) others[id] = token;
  }
  const std::string beginning = path + " is not the tokenizer that lies with the checkpoint: ";
  const std::string end = "; texts are encoded as the file that was given says";
  if (!others.empty()) {
    const auto& [id, token] = *others.begin();
    const auto found = spellings.find(id);
    return beginning + std::to_string(others.size()) + " of its " + std::to_string(own_ids.value().size()) +
           " tokens differ, first id " + std::to_string(id) + ", which is '" + token.substr(0, 40) + "' there and " +
           (found == spellings.end() ? "missing" : "'" + found->second.substr(0, 40) + "'") + " here" + end;
  }
  if (given_ids.value().size() != own_ids.value().size()) {
    return beginning + "it has " + std::to_string(given_ids.value().size()) + " tokens, the checkpoint's " +
           std::to_string(own_ids.value().size()) + end;
  }
  return merges_of(given) == merges_of(own) ? "" : beginning + "the merges differ" + end;
}

}  // namespace

Result<std::optional<TokenizerFiles>> find_tokenizer(const TokenizerPlace& place) {
  if (place.vocab_file.empty() != place.merges_file.empty()) {
    return refuse(ErrorCode::kBadRequest, "give both the vocabulary and the merges file, or neither");
  }
  if (place.vocab_file.empty()) return search(place);
  Result<std::optional<TokenizerFiles>> given = load(place, place.vocab_file, place.merges_file);
  if (!given.ok()) return given;
  // The files beside the checkpoint may be the reason why another tokenizer was given, so they need not be valid.
  if (const auto own = search(place); own.ok() && own.value()) {
    const std::string how = difference(*given.value(), *own.value(), place.vocab_file);
    if (!how.empty()) given.value()->notes.push_back(how);
  }
  return given;
}

}  // namespace optserve::converter
