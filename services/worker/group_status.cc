#include "worker/group_status.h"

#include <sys/mman.h>
#include <unistd.h>

#include <utility>

#include "base/clock.h"
#include "base/error.h"

namespace optserve::worker {
namespace {
GroupStatus* map(int fd) {
  void* memory = mmap(nullptr, sizeof(GroupStatus), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) throw errno_error("mmap of the group status");
  return static_cast<GroupStatus*>(memory);
}
}  // namespace

GroupStatusMemory GroupStatusMemory::create() {
  const int fd = memfd_create("optserve-group-status", MFD_CLOEXEC);
  if (fd < 0) throw errno_error("memfd_create");
  if (ftruncate(fd, sizeof(GroupStatus)) != 0) throw errno_error("ftruncate of the group status");
  return {map(fd), fd};
}

GroupStatusMemory GroupStatusMemory::attach(int fd) { return {map(fd), fd}; }

GroupStatusMemory::GroupStatusMemory(GroupStatusMemory&& other) noexcept
    : status_(std::exchange(other.status_, nullptr)), fd_(std::exchange(other.fd_, -1)) {}

GroupStatusMemory::~GroupStatusMemory() {
  if (status_ != nullptr) munmap(status_, sizeof(GroupStatus));
  if (fd_ >= 0) close(fd_);
}

int64_t monotonic_ms(const Clock& clock) {
  return std::chrono::duration_cast<milliseconds>(clock.now().time_since_epoch()).count();
}

}  // namespace optserve::worker
