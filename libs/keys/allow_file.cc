#include "keys/allow_file.h"

#include <sys/stat.h>

#include <functional>

#include "base/file_lock.h"
#include "keys/key_files.h"

namespace optserve::keys {
namespace {

bool exists(const std::string& path) {
  struct stat about {};
  return lstat(path.c_str(), &about) == 0;
}

Result<std::string> read_text(const std::string& path) {
  return exists(path) ? read_key_file(path, Privacy::kTrusted) : Result<std::string>(std::string());
}

// The text without the lines of those keys for which `drops` returns true.
std::string without(std::string_view text, const std::function<bool(const AllowedKey&)>& drops) {
  std::string kept;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const Result<AllowedKey> key = parse_allowed_key(line);
    if (key.ok() && drops(key.value())) continue;
    kept.append(line).append("\n");
  }
  return kept;
}

// Replaces the file's text by what `edit` returns for it.
Status edit_file(const std::string& path, const std::function<Result<std::string>(const std::string& text)>& edit) {
  const auto lock = FileLock::try_exclusive(path + ".lock");
  if (!lock) return refuse(ErrorCode::kBusy, path + ": another program changes it; try again");
  const Result<std::string> text = read_text(path);
  if (!text.ok()) return text.refusal();
  if (const auto list = parse_allow_list(text.value()); !list.ok()) {
    return refuse(list.refusal().code, path + ": " + list.refusal().message);
  }
  const Result<std::string> changed = edit(text.value());
  if (!changed.ok()) return changed.refusal();
  if (const auto list = parse_allow_list(changed.value()); !list.ok()) return list.refusal();
  return replace_file(path, changed.value());
}

}  // namespace

Result<AllowList> read_allow_file(const std::string& path) {
  const Result<std::string> text = read_text(path);
  if (!text.ok()) return text.refusal();
  Result<AllowList> list = parse_allow_list(text.value());
  if (!list.ok()) return refuse(list.refusal().code, path + ": " + list.refusal().message);
  return list;
}

Status allow_in_file(const std::string& path, const AllowedKey& key) {
  return edit_file(path, [&](const std::string& text) -> Result<std::string> {
    return without(text, [&](const AllowedKey& one) { return one.key == key.key; }) + allow_line(key) + "\n";
  });
}

Result<std::vector<AllowedKey>> revoke_in_file(const std::string& path, const std::string& key_or_name) {
  if (!exists(path)) return refuse(ErrorCode::kNotFound, path + ": there is no such file");
  std::vector<AllowedKey> removed;
  const Status status = edit_file(path, [&](const std::string& text) -> Result<std::string> {
    std::string kept = without(text, [&](const AllowedKey& one) {
      if (one.name != key_or_name && one.key.text() != key_or_name) return false;
      removed.push_back(one);
      return true;
    });
    if (removed.empty()) return refuse(ErrorCode::kNotFound, path + ": there is no such key or name");
    return kept;
  });
  if (!status.ok()) return status.refusal();
  return removed;
}

}  // namespace optserve::keys
