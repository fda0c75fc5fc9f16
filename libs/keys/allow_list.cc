#include "keys/allow_list.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "base/input_check.h"
#include "base/limits.h"

namespace optserve::keys {
namespace {

constexpr size_t kLineBytesMax = 128 << 10;
constexpr size_t kFolderBytesMax = 4'096;
constexpr const char* kRights = "client, operator, worker, tokenizer and converter";

std::string place_of(const PublicKey& key) { return {key.bytes.begin(), key.bytes.end()}; }

std::vector<std::string> split(std::string_view text, std::string_view separators) {
  std::vector<std::string> parts;
  while (true) {
    const size_t begin = text.find_first_not_of(separators);
    if (begin == std::string_view::npos) return parts;
    text.remove_prefix(begin);
    const size_t end = std::min(text.find_first_of(separators), text.size());
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

Refusal wrong(const std::string& message) { return refuse(ErrorCode::kBadRequest, message); }

Result<NameSet> parse_names(const std::string& right, std::string_view value, size_t bytes_max) {
  if (value == "*") return NameSet::of_all();
  std::vector<std::string> names;
  for (size_t begin = 0; begin <= value.size();) {
    const size_t end = std::min(value.find(',', begin), value.size());
    names.emplace_back(value.substr(begin, end - begin));
    if (names.size() > kNamesPerKeyMax) return wrong(right + ": more than " + std::to_string(kNamesPerKeyMax));
    if (Status status = check_name(right, names.back(), 1, bytes_max); !status.ok()) return status.refusal();
    begin = end + 1;
  }
  const size_t given = names.size();
  NameSet set(std::move(names));
  if (set.names().size() != given) return wrong(right + ": a name stands twice");
  return set;
}

Result<std::string> parse_folder(std::string_view value) {
  if (value.empty() || value.front() != '/' || value.size() > kFolderBytesMax) {
    return wrong("converter: expected a folder as an absolute path");
  }
  std::string normal = std::filesystem::path(value).lexically_normal().string();
  if (normal.size() > 1 && normal.ends_with('/')) normal.pop_back();
  if (normal != value) return wrong("converter: expected a path without '.', '..' and needless slashes");
  return normal;
}

// What the words of one line have set so far.
struct RightsReader {
  AllowedKey& key;
  bool has_client = false, has_worker = false, has_tokenizer = false, is_nameless_client = false;

  Status take(const std::string& word) {
    const size_t equals = word.find('=');
    const std::string right = word.substr(0, equals);
    const bool has_value = equals != std::string::npos;
    const std::string_view value = has_value ? std::string_view(word).substr(equals + 1) : std::string_view();
    if (word == "operator") {
      return std::exchange(key.is_operator, true) ? Status(wrong("operator: stands twice")) : ok_status();
    }
    if (word == "client") {
      return std::exchange(is_nameless_client, true) ? Status(wrong("client: stands twice")) : ok_status();
    }
    if (right == "client" && has_value) return set(key.tenants, has_client, right, value, limits::kTenantBytesMax);
    if (right == "worker" && has_value) {
      return set(key.worker_models, has_worker, right, value, limits::kModelNameBytesMax);
    }
    if (right == "tokenizer" && has_value) {
      return set(key.tokenizer_models, has_tokenizer, right, value, limits::kModelNameBytesMax);
    }
    if (right == "converter" && has_value) return add_folder(value);
    return wrong("expected a right (" + std::string(kRights) + "), such as client=TENANT, found another word");
  }

  Status set(NameSet& names, bool& is_set, const std::string& right, std::string_view value, size_t bytes_max) {
    if (std::exchange(is_set, true)) return wrong(right + ": stands twice; separate names by commas");
    Result<NameSet> parsed = parse_names(right, value, bytes_max);
    if (!parsed.ok()) return parsed.refusal();
    names = std::move(parsed).value();
    return ok_status();
  }

  Status add_folder(std::string_view value) {
    Result<std::string> folder = parse_folder(value);
    if (!folder.ok()) return folder.refusal();
    if (std::ranges::count(key.converter_folders, folder.value()) > 0) return wrong("converter: a folder stands twice");
    if (key.converter_folders.size() >= kFoldersPerKeyMax) {
      return wrong("converter: more than " + std::to_string(kFoldersPerKeyMax) + " folders");
    }
    key.converter_folders.push_back(std::move(folder).value());
    return ok_status();
  }
};

std::string joined(const NameSet& names) {
  if (names.is_all()) return "*";
  std::string text;
  for (const std::string& name : names.names()) {
    if (!name.empty()) text += (text.empty() ? "" : ",") + name;
  }
  return text;
}

}  // namespace

NameSet NameSet::of_all() {
  NameSet all;
  all.is_all_ = true;
  return all;
}

NameSet::NameSet(std::vector<std::string> names) : names_(std::move(names)) {
  std::ranges::sort(names_);
  names_.erase(std::unique(names_.begin(), names_.end()), names_.end());
}

bool NameSet::contains(std::string_view name) const {
  return is_all_ || std::binary_search(names_.begin(), names_.end(), name);
}

bool AllowedKey::may_enter(Door door) const {
  if (door == Door::kClients) return !tenants.empty() || is_operator;
  return !worker_models.empty() || !tokenizer_models.empty() || !converter_folders.empty();
}

const AllowedKey* AllowList::find(const PublicKey& key) const {
  const auto found = places_.find(place_of(key));
  return found == places_.end() ? nullptr : &keys_[found->second];
}

Status AllowList::add(AllowedKey key) {
  if (keys_.size() >= kAllowedKeysMax) return wrong("more than " + std::to_string(kAllowedKeysMax) + " keys");
  if (!places_.emplace(place_of(key.key), keys_.size()).second) return wrong("this key stands twice");
  keys_.push_back(std::move(key));
  return ok_status();
}

Status set_rights(AllowedKey& key, const std::vector<std::string>& words) {
  RightsReader reader{key};
  for (const std::string& word : words) {
    if (Status status = reader.take(word); !status.ok()) return status;
  }
  if (reader.is_nameless_client && !key.tenants.is_all()) {
    std::vector<std::string> tenants = key.tenants.names();
    tenants.emplace_back();
    key.tenants = NameSet(std::move(tenants));
  } else if (reader.is_nameless_client) {
    return wrong("client: client=* has the tenant without a name already");
  }
  if (!key.may_enter(Door::kClients) && !key.may_enter(Door::kServices)) {
    return wrong("no right; expected one of " + std::string(kRights));
  }
  return ok_status();
}

Result<AllowedKey> parse_allowed_key(std::string_view line) {
  if (line.size() > kLineBytesMax) return wrong("more than " + std::to_string(kLineBytesMax) + " bytes");
  std::vector<std::string> words = split(line, " \t\r");
  if (words.empty()) return wrong("expected a key");
  AllowedKey key;
  const Result<PublicKey> parsed = parse_public_key(words.front());
  if (!parsed.ok()) return parsed.refusal();
  key.key = parsed.value();
  if (words.size() < 2 || !words[1].starts_with("name=")) return wrong("expected name=NAME after the key");
  key.name = words[1].substr(std::string_view("name=").size());
  if (Status status = check_name("name", key.name, 1, limits::kTenantBytesMax); !status.ok()) return status.refusal();
  words.erase(words.begin(), words.begin() + 2);
  if (Status status = set_rights(key, words); !status.ok()) return status.refusal();
  return key;
}

Result<AllowList> parse_allow_list(std::string_view text) {
  AllowList list;
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string_view::npos || line[first] == '#') continue;
    Result<AllowedKey> key = parse_allowed_key(line);
    const Status status = key.ok() ? list.add(std::move(key).value()) : Status(key.refusal());
    if (!status.ok()) return wrong("line " + std::to_string(number) + ": " + status.refusal().message);
  }
  return list;
}

std::string allow_line(const AllowedKey& key) {
  std::string line = key.key.text() + " name=" + key.name;
  if (!key.tenants.is_all() && key.tenants.contains("")) line += " client";
  if (const std::string names = joined(key.tenants); !names.empty()) line += " client=" + names;
  if (key.is_operator) line += " operator";
  if (const std::string names = joined(key.worker_models); !names.empty()) line += " worker=" + names;
  if (const std::string names = joined(key.tokenizer_models); !names.empty()) line += " tokenizer=" + names;
  for (const std::string& folder : key.converter_folders) line += " converter=" + folder;
  return line;
}

bool lies_in(std::string_view path, std::string_view folder) {
  if (folder == "/") return path.starts_with('/');
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

}  // namespace optserve::keys
