#include "tokenizer/vocabulary_file.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_set>

#include "base/limits.h"

namespace optserve::tokenizer {
namespace {

using Json = nlohmann::json;

Refusal corrupt_file(std::string message) { return refuse(ErrorCode::kDataCorrupt, std::move(message)); }

std::optional<Refusal> refuse_oversize(std::string_view what, size_t bytes) {
  if (bytes <= kVocabularyFileBytesMax) return std::nullopt;
  return corrupt_file(std::string(what) + ": expected at most " + std::to_string(kVocabularyFileBytesMax) +
                      " bytes, found " + std::to_string(bytes));
}

// Handles the parser's events instead of a document, since a document silently keeps the last of two equal keys.
class VocabularyEvents final : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return refuse_value("null"); }
  bool boolean(bool) override { return refuse_value("a boolean"); }
  bool number_integer(number_integer_t value) override { return refuse_value(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return refuse_value(text); }
  bool string(string_t&) override { return refuse_value("a string"); }
  bool binary(binary_t&) override { return refuse_value("binary data"); }
  bool start_array(size_t) override { return refuse_value("an array"); }
  bool end_array() override { return true; }
  bool end_object() override { return true; }

  bool start_object(size_t) override {
    if (started_) return refuse_value("an object");
    started_ = true;
    return true;
  }

  bool key(string_t& token) override {
    if (token.empty() || token.size() > kSpellingBytesMax) {
      return fail("token " + in_quotes(token) + " has " + std::to_string(token.size()) + " bytes, expected 1 to " +
                  std::to_string(kSpellingBytesMax));
    }
    key_ = token;
    return true;
  }

  bool number_unsigned(number_unsigned_t id) override {
    if (!started_) return refuse_value(std::to_string(id));
    if (id >= limits::kVocabularyMax) {
      return fail("token " + in_quotes(key_) + " has id " + std::to_string(id) + ", expected one below " +
                  std::to_string(limits::kVocabularyMax));
    }
    if (!seen_.insert(key_).second) return fail("token " + in_quotes(key_) + " stands there twice");
    if (id >= tokens_.size()) tokens_.resize(id + 1);
    if (!tokens_[id].empty()) {
      return fail("id " + std::to_string(id) + " belongs to both " + in_quotes(tokens_[id]) + " and " +
                  in_quotes(key_));
    }
    tokens_[id] = key_;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& why) override {
    return fail("not JSON at byte " + std::to_string(position) + ": " + in_quotes(why.what()));
  }

  Result<std::vector<std::string>> take(bool parsed) {
    if (!parsed) return corrupt_file("vocabulary: " + (problem_.empty() ? "not JSON" : problem_));
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (tokens_[id].empty()) {
        return corrupt_file("vocabulary: no token has id " + std::to_string(id) + ", expected every id below " +
                            std::to_string(tokens_.size()));
      }
    }
    return std::move(tokens_);
  }

 private:
  bool refuse_value(const std::string& found) {
    if (!started_) return fail("expected an object {\"token\": id, ...}, found " + found);
    return fail("token " + in_quotes(key_) + ": expected its id, found " + found);
  }
  bool fail(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  bool started_ = false;
  std::string key_;
  std::string problem_;
  std::unordered_set<std::string> seen_;
  std::vector<std::string> tokens_;  // by id; empty where none was read yet
};

}  // namespace

std::string in_quotes(std::string_view text) {
  constexpr size_t kShown = 80;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text.substr(0, kShown)) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out + (text.size() > kShown ? "\"..." : "\"");
}

Result<std::vector<std::string>> read_vocabulary(std::string_view json) {
  if (auto refusal = refuse_oversize("vocabulary", json.size())) return *refusal;
  VocabularyEvents events;
  const bool parsed = Json::sax_parse(json.begin(), json.end(), &events);
  return events.take(parsed);
}

Result<std::vector<MergeLine>> read_merges(std::string_view text) {
  if (auto refusal = refuse_oversize("merges", text.size())) return *refusal;
  std::vector<MergeLine> merges;
  size_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);  // no token contains this byte: the alphabet spells it U+010D
    if (number == 1 && line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || space == 0 || space + 1 == line.size() || line.rfind(' ') != space) {
      return corrupt_file("merges line " + std::to_string(number) + ": expected two tokens and one space, found " +
                          in_quotes(line));
    }
    if (merges.size() == limits::kVocabularyMax) {
      return corrupt_file("merges line " + std::to_string(number) + ": more than " +
                          std::to_string(limits::kVocabularyMax) + " merges");
    }
    merges.push_back({number, line.substr(0, space), line.substr(space + 1)});
  }
  return merges;
}

}  // namespace optserve::tokenizer
