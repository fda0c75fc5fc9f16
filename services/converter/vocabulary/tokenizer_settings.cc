#include "converter/vocabulary/tokenizer_settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "checkpoint/io/byte_source.h"
#include "checkpoint/io/strict_json.h"

namespace optserve::converter {
namespace {

using checkpoint::corrupt_file;
using nlohmann::json;
using tokenizer::AddedToken;

constexpr int kTokenizerDepthMax = 32;
constexpr std::string_view kHowToServeIds = "; --tokenizer none converts the model to serve token ids only";

std::string brief(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 60);
}

Result<json> parse_object(std::string_view text, const std::string& path) {
  Result<json> parsed = checkpoint::parse_json_strict(text, path, kTokenizerDepthMax);
  if (parsed.ok() && !parsed.value().is_object()) return corrupt_file(path, "expected an object");
  return parsed;
}

bool flag_of(const json& object, const char* key) { return object.value(key, json(false)) == json(true); }

Status add_token(const std::string& path, AddedToken token, TokenizerSettings& found) {
  if (token.content.empty()) return corrupt_file(path, "an added token has no content");
  if (token.id < 0 || static_cast<uint64_t>(token.id) >= limits::kVocabularyMax) {
    return corrupt_file(path, "the added token '" + token.content + "' has the id " + std::to_string(token.id));
  }
  for (const auto& [content, other] : found.added) {
    if ((content == token.content) == (other.id == token.id)) continue;
    return corrupt_file(path, "the added token '" + token.content + "' has the id " + std::to_string(token.id) +
                                  ", but another file says that '" + content + "' has the id " +
                                  std::to_string(other.id));
  }
  const std::string content = token.content;
  found.added.emplace(content, std::move(token));
  return ok_status();
}

Status add_described(const std::string& path, TokenId id, const json& object, TokenizerSettings& found) {
  const json content = object.is_object() ? object.value("content", json()) : json();
  if (!content.is_string()) return corrupt_file(path, "an added token is " + brief(object));
  AddedToken token{id, content.get<std::string>()};
  token.special = flag_of(object, "special");
  token.lstrip = flag_of(object, "lstrip");
  token.rstrip = flag_of(object, "rstrip");
  token.single_word = flag_of(object, "single_word");
  return add_token(path, std::move(token), found);
}

// A role's token is a text, or an object with the text and how it is recognised.
std::optional<std::string> content_of(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string()) {
    return value["content"].get<std::string>();
  }
  return std::nullopt;
}

void read_roles(const json& object, TokenizerSettings& found) {
  for (const char* role : {"bos_token", "eos_token", "pad_token", "unk_token", "mask_token"}) {
    const auto content = object.contains(role) ? content_of(object[role]) : std::nullopt;
    if (!content) continue;
    found.special.push_back(*content);
    if (std::string_view(role) == "bos_token") found.bos_token = content;
    if (std::string_view(role) == "eos_token") found.eos_token = content;
  }
  const auto additional = object.find("additional_special_tokens");
  if (additional == object.end() || !additional->is_array()) return;
  for (const json& value : *additional) {
    if (const auto content = content_of(value)) found.special.push_back(*content);
  }
}

Refusal other_kind(const std::string& path, const std::string& what) {
  return refuse(
      ErrorCode::kUnsupportedFormat,
      path + ": " + what + ", expected a byte-level BPE as GPT-2 and OPT have it" + std::string(kHowToServeIds));
}

// The kinds of a sequence in their order, which say more than its first bytes do; other values as they are.
std::string kinds_of(const json& value) {
  const json list = value.is_object() ? value.value("pretokenizers", json()) : json();
  if (!list.is_array()) return brief(value);
  std::string kinds;
  for (const json& one : list) {
    const json kind = one.is_object() ? one.value("type", json()) : json();
    kinds += (kinds.empty() ? "" : ", ") + (kind.is_string() ? kind.get<std::string>().substr(0, 40) : brief(kind));
    if (kinds.size() > 200) break;
  }
  return "the sequence " + kinds;
}

// ByteLevel with GPT-2's pattern and without a space in front, alone or as the only one of a sequence.
Status check_pre_tokenizer(const json& root, const std::string& path) {
  json found = root.value("pre_tokenizer", json());
  if (found.is_object() && found.value("type", json()) == "Sequence" && found.contains("pretokenizers") &&
      found["pretokenizers"].is_array() && found["pretokenizers"].size() == 1) {
    found = json(found["pretokenizers"][0]);
  }
  if (!found.is_object() || found.value("type", json()) != "ByteLevel") {
    return other_kind(path, "pre_tokenizer is " + kinds_of(found));
  }
  if (flag_of(found, "add_prefix_space")) return other_kind(path, "add_prefix_space is true");
  if (found.value("use_regex", json(true)) != true) return other_kind(path, "use_regex is false");
  return ok_status();
}

Status check_model(const json& model, const std::string& path) {
  if (!model.is_object() || model.value("type", json("BPE")) != "BPE") {
    return other_kind(path, "model is " + (model.is_object() ? brief(model.value("type", json())) : brief(model)));
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const json value = model.value(key, json()); !value.is_null() && value != "") {
      return other_kind(path, std::string(key) + " is " + brief(value));
    }
  }
  for (const char* key : {"byte_fallback", "ignore_merges"}) {
    if (flag_of(model, key)) return other_kind(path, std::string(key) + " is true");
  }
  if (!model.contains("vocab") || !model["vocab"].is_object() || !model.contains("merges") ||
      !model["merges"].is_array()) {
    return corrupt_file(path, "model holds no vocab and merges");
  }
  return ok_status();
}

Result<std::string> merges_text(const json& merges, const std::string& path) {
  std::string text = "#version: 0.2\n";
  for (const json& merge : merges) {
    const bool is_pair = merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
    if (!is_pair && !merge.is_string()) return corrupt_file(path, "a merge is " + brief(merge));
    text += is_pair ? merge[0].get<std::string>() + " " + merge[1].get<std::string>() : merge.get<std::string>();
    text += '\n';
  }
  return text;
}

// A template that puts one token in front says which.
void read_post_processor(const json& post, const std::string& path, TokenizerSettings& found) {
  if (post.is_null() || (post.is_object() && post.value("type", json()) == "ByteLevel")) return;
  const json single = post.is_object() ? post.value("single", json()) : json();
  const bool leads =
      single.is_array() && single.size() == 2 && single[0].contains("SpecialToken") && single[1].contains("Sequence");
  const json first = leads ? single[0]["SpecialToken"] : json();
  const json token = first.is_object() ? first.value("id", json()) : json();
  if (!token.is_string()) {
    found.notes.push_back(path + ": post_processor is not applied: " + brief(post));
    return;
  }
  found.leads_with_bos = true;
  found.bos_token = token.get<std::string>();
}

}  // namespace

Result<TokenizerTables> parse_tokenizer_json(std::string_view text, const std::string& path, TokenizerSettings& found) {
  const Result<json> parsed = parse_object(text, path);
  if (!parsed.ok()) return parsed.refusal();
  const json& root = parsed.value();
  const json model = root.value("model", json());
  if (Status status = check_model(model, path); !status.ok()) return status.refusal();
  if (Status status = check_pre_tokenizer(root, path); !status.ok()) return status.refusal();
  if (const json normalizer = root.value("normalizer", json()); !normalizer.is_null()) {
    return other_kind(path, "normalizer is " + brief(normalizer));
  }
  const json added = root.value("added_tokens", json::array());
  for (const json& token : added) {
    const json id = token.is_object() ? token.value("id", json()) : json();
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= limits::kVocabularyMax) {
      return corrupt_file(path, "an added token is " + brief(token));
    }
    if (Status status = add_described(path, id.get<TokenId>(), token, found); !status.ok()) return status.refusal();
  }
  Result<std::string> merges = merges_text(model["merges"], path);
  if (!merges.ok()) return merges.refusal();
  read_post_processor(root.value("post_processor", json()), path, found);
  return TokenizerTables{model["vocab"].dump(), std::move(merges).value()};
}

Status parse_tokenizer_config(std::string_view text, const std::string& path, TokenizerSettings& found) {
  const Result<json> parsed = parse_object(text, path);
  if (!parsed.ok()) return parsed.refusal();
  const json& root = parsed.value();
  if (flag_of(root, "add_prefix_space")) return other_kind(path, "add_prefix_space is true");
  if (const json decoder = root.value("added_tokens_decoder", json()); decoder.is_object()) {
    for (const auto& [key, token] : decoder.items()) {
      TokenId id = -1;
      const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
      if (error != std::errc() || end != key.data() + key.size()) {
        return corrupt_file(path, "added_tokens_decoder holds the id '" + key.substr(0, 40) + "'");
      }
      if (Status status = add_described(path, id, token, found); !status.ok()) return status;
    }
  }
  read_roles(root, found);
  // A tokenizer that is tokenizer.json alone puts nothing in front unless that file says so.
  if (root.value("tokenizer_class", json()) == "PreTrainedTokenizerFast" && !found.leads_with_bos) {
    found.leads_with_bos = false;
  }
  if (const auto leads = root.find("add_bos_token"); leads != root.end() && leads->is_boolean()) {
    found.leads_with_bos = leads->get<bool>();
  }
  if (flag_of(root, "add_eos_token")) found.notes.push_back(path + ": add_eos_token is not applied");
  if (root.contains("chat_template")) {
    found.notes.push_back(path + ": chat_template is not applied; prompts are served as they are sent");
  }
  return ok_status();
}

Status parse_added_tokens_json(std::string_view text, const std::string& path, TokenizerSettings& found) {
  const Result<json> parsed = parse_object(text, path);
  if (!parsed.ok()) return parsed.refusal();
  for (const auto& [content, id] : parsed.value().items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= limits::kVocabularyMax) {
      return corrupt_file(path, "the added token '" + content + "' has the id " + brief(id));
    }
    if (Status status = add_token(path, {id.get<TokenId>(), content}, found); !status.ok()) return status;
  }
  return ok_status();
}

Status parse_special_tokens_map(std::string_view text, const std::string& path, TokenizerSettings& found) {
  const Result<json> parsed = parse_object(text, path);
  if (!parsed.ok()) return parsed.refusal();
  read_roles(parsed.value(), found);
  return ok_status();
}

}  // namespace optserve::converter
