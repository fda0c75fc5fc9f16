#include "gateway/access/key_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/program.h"

namespace optserve::gateway {
namespace {

// The text of a regular file that others cannot read.
Result<std::string> read_private_file(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return refuse(ErrorCode::kUnavailable, errno_error("open").what());
  const auto read_all = [fd]() -> Result<std::string> {
    struct stat about {};
    if (fstat(fd, &about) != 0) return refuse(ErrorCode::kUnavailable, errno_error("stat").what());
    if (!S_ISREG(about.st_mode)) return refuse(ErrorCode::kBadRequest, "expected a regular file");
    if ((about.st_mode & (S_IROTH | S_IWOTH)) != 0) {
      return refuse(ErrorCode::kBadRequest, "others may read or write it; expected mode 0600 or 0640");
    }
    std::string text(kApiKeyFileBytesMax + 1, '\0');
    size_t bytes = 0;
    while (bytes < text.size()) {
      const ssize_t got = ::read(fd, text.data() + bytes, text.size() - bytes);
      if (got < 0) return refuse(ErrorCode::kUnavailable, errno_error("read").what());
      if (got == 0) break;
      bytes += static_cast<size_t>(got);
    }
    if (bytes > kApiKeyFileBytesMax) {
      return refuse(ErrorCode::kBadRequest, "more than " + std::to_string(kApiKeyFileBytesMax) + " bytes");
    }
    text.resize(bytes);
    return text;
  };
  Result<std::string> text = read_all();
  close(fd);
  return text;
}

}  // namespace

KeyStore::KeyStore(std::string file, const std::string& lines) : file_(std::move(file)) {
  Result<std::vector<ApiKey>> fixed = parse_api_keys(lines);
  if (!fixed.ok()) throw ConfigurationError("key-lines: " + fixed.refusal().message);
  fixed_ = std::move(fixed).value();
  keys_ = fixed_;
  if (file_.empty()) return;
  seen_ = file_stamp(file_);
  if (const Status status = read(); !status.ok()) {
    throw ConfigurationError("keys: " + file_ + ": " + status.refusal().message);
  }
  if (keys_.empty()) {
    throw ConfigurationError("keys: " + file_ + " holds no key; `optserve-gateway new-key` makes one");
  }
}

bool KeyStore::refresh() {
  if (file_.empty()) return false;
  const std::optional<FileStamp> present = file_stamp(file_);
  if (present == seen_) return false;
  seen_ = present;
  if (const Status status = read(); !status.ok()) {
    log_error("keys_not_read", {{"file", file_}, {"cause", status.refusal().message}, {"kept", keys_.size()}});
    return false;
  }
  log_info("keys_read", {{"file", file_}, {"keys", keys_.size()}});
  return true;
}

Status KeyStore::read() {
  const Result<std::string> text = read_private_file(file_);
  if (!text.ok()) return text.refusal();
  Result<std::vector<ApiKey>> keys = parse_api_keys(text.value());
  if (!keys.ok()) return keys.refusal();
  for (const ApiKey& key : fixed_) {
    if (std::ranges::find(keys.value(), key.id, &ApiKey::id) != keys.value().end()) {
      return refuse(ErrorCode::kBadRequest, "the environment has a key of the id " + key.id + " too");
    }
    keys.value().push_back(key);
  }
  keys_ = std::move(keys).value();
  return ok_status();
}

}  // namespace optserve::gateway
