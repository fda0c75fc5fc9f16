#include "journal/sqlite/disk_reserve.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>

#include "base/error.h"
#include "journal/journal_files.h"

namespace optserve::journal {
namespace {

constexpr int64_t kRoomBytesMin = 1 << 20;  // required if no reserve is kept

}  // namespace

bool DiskReserve::fill() {
  if (bytes_ == 0 || file_bytes(path_) >= bytes_) return true;
  const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) {
    if (errno == ENOSPC) return false;
    throw errno_error("open " + path_);
  }
  const int failure = ::posix_fallocate(fd, 0, bytes_);
  ::close(fd);
  if (failure == 0) return true;
  release();  // a partial reserve would only take up space
  if (failure == ENOSPC || failure == EDQUOT || failure == EFBIG) return false;
  errno = failure;
  throw errno_error("reserve " + path_);
}

void DiskReserve::release() { remove_file(path_); }

bool DiskReserve::has_room_for_it() const {
  const size_t slash = path_.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
  struct statvfs disk {};
  if (::statvfs(folder.c_str(), &disk) != 0) throw errno_error("statvfs " + folder);
  const auto free = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
  return free >= std::max(2 * bytes_, kRoomBytesMin);
}

}  // namespace optserve::journal
