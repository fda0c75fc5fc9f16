// Tells whether a file may have changed since it was looked at, also when another file took its name.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>

namespace optserve {

struct FileStamp {
  uint64_t device = 0, inode = 0;
  int64_t bytes = 0, changed_s = 0, changed_ns = 0;
  bool operator==(const FileStamp&) const = default;
};

// nullopt: there is no such file. The time is that of the last change of the inode: a new mode counts too.
inline std::optional<FileStamp> file_stamp(const std::string& path) {
  struct stat about {};
  if (stat(path.c_str(), &about) != 0) return std::nullopt;
  return FileStamp{about.st_dev, about.st_ino, about.st_size, about.st_ctim.tv_sec, about.st_ctim.tv_nsec};
}

}  // namespace optserve
