#include "gateway/batches/file_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "base/clock.h"
#include "base/ids.h"
#include "base/rename_file.h"
#include "http_api/openai/json_text.h"

namespace optserve::gateway {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kIdPrefix = "file-";
constexpr std::string_view kFactsSuffix = ".json";
constexpr std::string_view kPartialPrefix = "partial-";
constexpr seconds kLeftOverAfter{24 * 3600};

std::optional<StoredFile> parse_facts(const std::string& text) {
  const json facts = json::parse(text, nullptr, false);
  if (!facts.is_object()) return std::nullopt;
  try {
    return StoredFile{.id = facts.at("id"),
                      .filename = facts.at("filename"),
                      .purpose = facts.at("purpose"),
                      .tenant = facts.at("tenant"),
                      .bytes = facts.at("bytes"),
                      .created_at = facts.at("created_at"),
                      .expires_at = facts.at("expires_at")};
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

std::string facts_text(const StoredFile& file) {
  return http_api::json_text({{"id", file.id},
                              {"filename", file.filename},
                              {"purpose", file.purpose},
                              {"tenant", file.tenant},
                              {"bytes", file.bytes},
                              {"created_at", file.created_at},
                              {"expires_at", file.expires_at}});
}

void flush(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool is_flushed = fd >= 0 && fsync(fd) == 0;
  if (fd >= 0) close(fd);
  if (!is_flushed) throw errno_error("flush " + path);
}

uint64_t file_bytes(const std::string& path) {
  std::error_code error;
  const uintmax_t bytes = fs::file_size(path, error);
  return error ? 0 : bytes;
}

}  // namespace

void replace_file(const std::string& path, std::string_view text, bool is_durable) {
  const std::string fresh = path + ".new-" + Id128::random().hex();
  std::ofstream file(fresh, std::ios::binary);
  file << text;
  file.close();
  if (!file) {
    std::remove(fresh.c_str());
    throw errno_error("write " + fresh);
  }
  if (is_durable) flush(fresh);
  rename_file(fresh, path);
  if (is_durable) flush(fs::path(path).parent_path());
}

std::optional<std::string> read_small_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

FileStore::FileStore(std::string folder, uint64_t bytes_max) : folder_(std::move(folder)), bytes_max_(bytes_max) {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) throw Error("create " + folder_ + ": " + error.message());
}

bool FileStore::is_id(std::string_view text) {
  return text.starts_with(kIdPrefix) && Id128::from_hex(text.substr(kIdPrefix.size())).has_value();
}

std::string FileStore::new_id() { return std::string(kIdPrefix) + Id128::random().hex(); }

std::string FileStore::content_path(std::string_view id) const { return folder_ + "/" + std::string(id); }
std::string FileStore::facts_path(std::string_view id) const { return content_path(id) + std::string(kFactsSuffix); }

std::string FileStore::new_partial() const {
  return folder_ + "/" + std::string(kPartialPrefix) + Id128::random().hex();
}

Status FileStore::check_room(uint64_t bytes) const {
  for (const StoredFile& file : list(0)) bytes += file.bytes;
  if (bytes <= bytes_max_) return Unit{};
  return refuse(ErrorCode::kStorageFull, "the gateway's files would have " + std::to_string(bytes) +
                                             " bytes, at most " + std::to_string(bytes_max_) +
                                             " are kept; delete some first");
}

void FileStore::adopt(const std::string& partial, StoredFile facts) {
  // After a kill between these steps the content may be in its place already.
  if (fs::exists(partial)) {
    flush(partial);
    rename_file(partial, content_path(facts.id));
  }
  facts.bytes = file_bytes(content_path(facts.id));
  replace_file(facts_path(facts.id), facts_text(facts), true);
}

std::optional<StoredFile> FileStore::find(std::string_view id, int64_t now) const {
  if (!is_id(id)) return std::nullopt;
  const std::optional<std::string> text = read_small_file(facts_path(id));
  if (!text) return std::nullopt;
  std::optional<StoredFile> file = parse_facts(*text);
  if (file && file->expires_at != 0 && file->expires_at <= now) return std::nullopt;
  return file;
}

std::vector<StoredFile> FileStore::list(int64_t now) const {
  std::vector<StoredFile> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename();
    if (!name.ends_with(kFactsSuffix)) continue;
    if (auto file = find(name.substr(0, name.size() - kFactsSuffix.size()), now)) files.push_back(std::move(*file));
  }
  std::ranges::sort(files, [](const StoredFile& a, const StoredFile& b) {
    return std::pair(b.created_at, std::string_view(b.id)) < std::pair(a.created_at, std::string_view(a.id));
  });
  return files;
}

bool FileStore::remove(std::string_view id) {
  if (!is_id(id) || std::remove(facts_path(id).c_str()) != 0) return false;
  std::remove(content_path(id).c_str());
  return true;
}

void FileStore::sweep(int64_t now, const std::set<std::string, std::less<>>& in_use) {
  struct stat facts {};
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename();
    if (name.ends_with(kFactsSuffix)) {
      const std::string id = name.substr(0, name.size() - kFactsSuffix.size());
      const auto text = read_small_file(entry.path());
      const auto file = text ? parse_facts(*text) : std::nullopt;
      if (file && file->expires_at != 0 && file->expires_at <= now && !in_use.contains(id)) remove(id);
      continue;
    }
    const bool is_old = stat(entry.path().c_str(), &facts) == 0 && facts.st_mtim.tv_sec + kLeftOverAfter.count() < now;
    const bool is_stored = is_id(name) && fs::exists(facts_path(name));
    if (is_old && !is_stored) std::remove(entry.path().c_str());
  }
}

std::string file_body(const StoredFile& file) {
  nlohmann::ordered_json body = {{"id", file.id},
                                 {"object", "file"},
                                 {"bytes", file.bytes},
                                 {"created_at", file.created_at},
                                 {"filename", file.filename},
                                 {"purpose", file.purpose},
                                 {"status", "processed"}};
  if (file.expires_at != 0) body["expires_at"] = file.expires_at;
  return http_api::json_text(body);
}

}  // namespace optserve::gateway
