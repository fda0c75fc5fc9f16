// Loaded into the processes under test with LD_PRELOAD, to give them a slow disk and a wall clock that jumps. A file
// says how, which the harness maps as well. CHAOS_SHIM names it; without that file calls are not changed.
#include "preload.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>

namespace {

using optserve::chaos::ShimControl;

const ShimControl* map_control() {
  const char* path = getenv("CHAOS_SHIM");
  const int fd = path != nullptr ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (fd < 0) return nullptr;
  void* memory = mmap(nullptr, sizeof(ShimControl), PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  return memory == MAP_FAILED ? nullptr : static_cast<const ShimControl*>(memory);
}

const ShimControl* control() {
  static const ShimControl* const mapped = map_control();
  return mapped;
}

template <class F>
F* next_function(const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

void wait_for_the_disk() {
  if (control() == nullptr) return;
  const int64_t delay = control()->sync_delay_us.load(std::memory_order_relaxed);
  if (delay > 0) usleep(static_cast<useconds_t>(delay));
}

int64_t clock_offset_ms() {
  return control() == nullptr ? 0 : control()->clock_offset_ms.load(std::memory_order_relaxed);
}

}  // namespace

extern "C" {

int fsync(int fd) {
  static const auto next = next_function<int(int)>("fsync");
  wait_for_the_disk();
  return next(fd);
}

int fdatasync(int fd) {
  static const auto next = next_function<int(int)>("fdatasync");
  wait_for_the_disk();
  return next(fd);
}

int clock_gettime(clockid_t clock, timespec* time) noexcept {
  static const auto next = next_function<int(clockid_t, timespec*)>("clock_gettime");
  const int status = next(clock, time);
  if (status == 0 && clock == CLOCK_REALTIME) {
    const int64_t offset = clock_offset_ms();
    time->tv_sec += offset / 1000;
    time->tv_nsec += offset % 1000 * 1'000'000;
    if (time->tv_nsec >= 1'000'000'000) time->tv_nsec -= 1'000'000'000, ++time->tv_sec;
    if (time->tv_nsec < 0) time->tv_nsec += 1'000'000'000, --time->tv_sec;
  }
  return status;
}

int gettimeofday(timeval* time, void*) noexcept {
  timespec now{};
  const int status = clock_gettime(CLOCK_REALTIME, &now);
  if (time != nullptr) *time = {now.tv_sec, static_cast<suseconds_t>(now.tv_nsec / 1000)};
  return status;
}

time_t time(time_t* out) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (out != nullptr) *out = now.tv_sec;
  return now.tv_sec;
}

}  // extern "C"
