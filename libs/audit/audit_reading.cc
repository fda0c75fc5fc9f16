// Reading audit logs, also while they are written.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "audit/audit_file.h"
#include "audit/audit_log.h"
#include "base/error.h"

namespace optserve::audit {
namespace {

constexpr size_t kBytesRead = 4 * kFileBytesMax;  // of one file, from its end: others than ours may be of any size

class OpenFile {
 public:
  explicit OpenFile(const std::string& path)
      : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (fd_ < 0 && errno != ENOENT) throw errno_error("open " + path);
    if (fd_ >= 0 && fstat(fd_, &about_) != 0) throw errno_error("stat " + path);
    if (fd_ >= 0 && !S_ISREG(about_.st_mode)) throw Error(path + ": expected a file");
  }
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenFile(OpenFile&& other) noexcept
      : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), about_(other.about_) {}
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  bool is_there() const { return fd_ >= 0; }
  bool is_same(const OpenFile& other) const {
    return about_.st_dev == other.about_.st_dev && about_.st_ino == other.about_.st_ino;
  }
  std::string read() const {
    const size_t bytes = static_cast<size_t>(about_.st_size);
    std::string text(std::min(bytes, kBytesRead), '\0');
    const size_t skipped = bytes - text.size();
    size_t done = 0;
    while (done < text.size()) {
      const ssize_t more = ::pread(fd_, text.data() + done, text.size() - done, static_cast<off_t>(skipped + done));
      if (more < 0 && errno == EINTR) continue;
      if (more < 0) throw errno_error("read " + path_);
      if (more == 0) break;  // it was cut meanwhile
      done += static_cast<size_t>(more);
    }
    text.resize(done);
    if (skipped > 0) text.erase(0, std::min(text.find('\n'), text.size()));
    return text;
  }

 private:
  std::string path_;
  int fd_;
  struct stat about_ {};
};

// All are opened before any is read: a file that takes its turn meanwhile is met twice, which shows, and none is
// missed.
std::vector<OpenFile> open_all(const std::string& path, size_t files_max) {
  std::vector<OpenFile> files;
  for (size_t age = 0; age < files_max; ++age) {
    OpenFile file(file_name(path, age));
    const auto is_known = [&](const OpenFile& other) { return other.is_same(file); };
    if (file.is_there() && std::ranges::none_of(files, is_known)) files.push_back(std::move(file));
  }
  if (files.empty()) throw Error(path + ": there is no audit log");
  return files;
}

void read_lines(const std::string& text, size_t limit, Listing& listing) {
  // What has no end yet is being written.
  size_t end = text.rfind('\n');
  while (end != std::string::npos && end > 0 && listing.records.size() < limit) {
    const size_t before = text.rfind('\n', end - 1);
    const size_t begin = before == std::string::npos ? 0 : before + 1;
    if (end > begin) {
      auto record = parse_line(std::string_view(text).substr(begin, end - begin));
      if (record.ok()) {
        listing.records.push_back(std::move(record).value());
      } else {
        ++listing.unreadable;
      }
    }
    end = before;
  }
}

Listing read_log(const std::string& path, size_t limit, size_t files_max) {
  Listing listing;
  for (const OpenFile& file : open_all(path, files_max)) {
    if (listing.records.size() >= limit) break;
    read_lines(file.read(), limit, listing);
  }
  return listing;
}

}  // namespace

Listing read_logs(const std::vector<std::string>& paths, size_t limit, size_t files_max) {
  Listing all;
  for (const std::string& path : paths) {
    Listing one = read_log(path, limit, files_max);
    all.unreadable += one.unreadable;
    // A merge, not a sort: within a log the order is that of the events, even where a clock was set back.
    std::vector<Record> merged;
    std::ranges::merge(all.records, one.records, std::back_inserter(merged),
                       [](const Record& a, const Record& b) { return a.wall_ms > b.wall_ms; });
    all.records = std::move(merged);
  }
  if (all.records.size() > limit) all.records.resize(limit);
  return all;
}

}  // namespace optserve::audit
