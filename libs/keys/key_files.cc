#include "keys/key_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <optional>

namespace optserve::keys {
namespace {

class OpenFile {
 public:
  OpenFile(const std::string& path, int flags, unsigned mode = 0) : fd_(open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~OpenFile() {
    if (fd_ >= 0) close(fd_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

Refusal file_refusal(const std::string& path, const std::string& what) {
  return refuse(ErrorCode::kBadRequest, path + ": " + what);
}

Refusal system_refusal(const std::string& path, const char* call) {
  return refuse(ErrorCode::kUnavailable, errno_error(std::string(call) + " " + path).what());
}

Status check_permissions(const std::string& path, const struct stat& about, Privacy privacy) {
  if (!S_ISREG(about.st_mode)) return file_refusal(path, "expected a regular file");
  mode_t forbidden = S_IWGRP | S_IWOTH;
  if (privacy == Privacy::kSecret) {
    forbidden |= S_IROTH | S_IXGRP | S_IXOTH;
    const bool root_shares_it = about.st_uid == 0 && geteuid() != 0;
    if (!root_shares_it) forbidden |= S_IRGRP;
  }
  if ((about.st_mode & forbidden) == 0) return ok_status();
  const bool is_secret = privacy == Privacy::kSecret;
  return file_refusal(path, std::string(is_secret ? "its group or others may read or write this secret"
                                                  : "its group or others may write it") +
                                "; run: chmod " + (is_secret ? "600 " : "go-w ") + path);
}

// Calls `take` with each line that is neither empty nor a comment, and its number; stops at the first refusal.
template <class Take>
Status for_each_line(std::string_view text, const Take& take) {
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    const size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string_view::npos || line[first] == '#') continue;
    line = line.substr(first, line.find_last_not_of(" \t\r") + 1 - first);
    if (Status status = take(line); !status.ok()) {
      return refuse(status.refusal().code, "line " + std::to_string(number) + ": " + status.refusal().message);
    }
  }
  return ok_status();
}

Status write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return system_refusal(path, "write");
    text.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(fd) != 0) return system_refusal(path, "fsync");
  return ok_status();
}

}  // namespace

Result<std::string> read_key_file(const std::string& path, Privacy privacy) {
  const OpenFile file(path, O_RDONLY | O_NONBLOCK);
  if (file.fd() < 0) return system_refusal(path, "open");
  struct stat about {};
  if (fstat(file.fd(), &about) != 0) return system_refusal(path, "stat");
  if (Status status = check_permissions(path, about, privacy); !status.ok()) return status.refusal();
  std::string text(kKeyFileBytesMax + 1, '\0');
  size_t bytes = 0;
  while (bytes < text.size()) {
    const ssize_t got = read(file.fd(), text.data() + bytes, text.size() - bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_refusal(path, "read");
    if (got == 0) break;
    bytes += static_cast<size_t>(got);
  }
  if (bytes > kKeyFileBytesMax) {
    return file_refusal(path, "more than " + std::to_string(kKeyFileBytesMax) + " bytes");
  }
  text.resize(bytes);
  return text;
}

Result<SecretKey> parse_secret_key_file(std::string_view text) {
  std::optional<SecretKey> found;
  const Status status = for_each_line(text, [&](std::string_view line) -> Status {
    if (found) return refuse(ErrorCode::kBadRequest, "a second key; expected one");
    Result<SecretKey> key = parse_secret_key(line);
    if (!key.ok()) return key.refusal();
    found = std::move(key).value();
    return ok_status();
  });
  if (!status.ok()) return status.refusal();
  if (!found) return refuse(ErrorCode::kBadRequest, "no key; expected one line with a secret key");
  return *found;
}

Result<std::vector<PublicKey>> parse_public_key_file(std::string_view text) {
  std::vector<PublicKey> found;
  const Status status = for_each_line(text, [&](std::string_view line) -> Status {
    const Result<PublicKey> key = parse_public_key(line);
    if (!key.ok()) return key.refusal();
    found.push_back(key.value());
    return ok_status();
  });
  if (!status.ok()) return status.refusal();
  if (found.empty()) return refuse(ErrorCode::kBadRequest, "no key; expected a line with a public key");
  return found;
}

Result<SecretKey> read_secret_key_file(const std::string& path) {
  Result<std::string> text = read_key_file(path, Privacy::kSecret);
  if (!text.ok()) return text.refusal();
  Result<SecretKey> key = parse_secret_key_file(text.value());
  wipe(text.value());
  if (!key.ok()) return file_refusal(path, key.refusal().message);
  return key;
}

Result<std::vector<PublicKey>> read_public_key_file(const std::string& path) {
  const Result<std::string> text = read_key_file(path, Privacy::kTrusted);
  if (!text.ok()) return text.refusal();
  Result<std::vector<PublicKey>> found = parse_public_key_file(text.value());
  if (!found.ok()) return file_refusal(path, found.refusal().message);
  return found;
}

Status write_new_file(const std::string& path, std::string_view text, unsigned mode) {
  const OpenFile file(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
  if (file.fd() < 0 && errno == EEXIST) return file_refusal(path, "exists, and is not overwritten");
  if (file.fd() < 0) return system_refusal(path, "create");
  if (fchmod(file.fd(), mode) != 0) return system_refusal(path, "chmod");
  return write_all(file.fd(), text, path);
}

Status replace_file(const std::string& path, std::string_view text) {
  struct stat about {};
  const unsigned mode = stat(path.c_str(), &about) == 0 ? about.st_mode & 0777U : 0600U;
  const std::string staged = path + ".new." + std::to_string(getpid());
  unlink(staged.c_str());
  if (Status status = write_new_file(staged, text, mode); !status.ok()) return status;
  if (std::rename(staged.c_str(), path.c_str()) != 0) return system_refusal(path, "rename");
  return ok_status();
}

}  // namespace optserve::keys
