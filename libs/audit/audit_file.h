// The files of an audit log: appending whole lines and taking turns. One thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "base/file_lock.h"

namespace optserve::audit {

// path for 0, then path.1, path.2, …: older ones.
std::string file_name(const std::string& path, size_t age);

class AuditFile {
 public:
  AuditFile(std::string path, size_t file_bytes_max, size_t files_max)
      : path_(std::move(path)), file_bytes_max_(file_bytes_max), files_max_(files_max) {
    check(files_max_ >= 2, "an audit log takes turns between two files at least");
  }
  ~AuditFile() { close(); }
  AuditFile(const AuditFile&) = delete;
  AuditFile& operator=(const AuditFile&) = delete;

  // Whole and synced, or Error: then as far as the disk lets us nothing of it is there, and it may be given again. Only
  // the owner may read the file (0600).
  void append(std::string_view lines);

 private:
  void open();
  void close();
  void take_turns();  // the present file is full
  bool is_in_place() const;

  const std::string path_;
  const size_t file_bytes_max_, files_max_;
  std::optional<FileLock> lock_;  // path.lock: the log has one writer
  int fd_ = -1;
  size_t bytes_ = 0;
};

}  // namespace optserve::audit
