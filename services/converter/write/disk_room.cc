#include "converter/write/disk_room.h"

#include <sys/statvfs.h>

#include <filesystem>

namespace optserve::converter {

Status check_room(const std::string& output, uint64_t bytes) {
  std::string parent = std::filesystem::path(output).parent_path().string();
  if (parent.empty()) parent = ".";
  struct statvfs info {};
  if (statvfs(parent.c_str(), &info) != 0) return ok_status();  // the writer will say what is wrong
  const uint64_t room = static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  if (room >= bytes) return ok_status();
  return refuse(ErrorCode::kUnavailable, parent + ": " + std::to_string(bytes >> 20) + " MiB are needed, " +
                                             std::to_string(room >> 20) + " MiB are free");
}

}  // namespace optserve::converter
