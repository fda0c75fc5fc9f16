// Loaded into the processes under test with LD_PRELOAD, to let their allocations fail. NO_MEMORY names a folder; a file
// there with the name of a program holds two numbers: how many processes of that program are left alone first, and how
// many allocations succeed in the one that follows. The next kFailures then fail. The file is gone once it was used.
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>

extern "C" {
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t count, size_t bytes);
void* __libc_realloc(void* memory, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
}

namespace {

constexpr long kFailures = 20;
constexpr long kNever = -1'000'000'000;

std::atomic<long> allocations_left{kNever};

bool fails() {
  if (allocations_left.load(std::memory_order_relaxed) <= kNever / 2) return false;
  const long left = allocations_left.fetch_sub(1, std::memory_order_relaxed);
  if (left > 0) return false;
  if (left <= -kFailures) allocations_left.store(kNever, std::memory_order_relaxed);
  errno = ENOMEM;
  return true;
}

__attribute__((constructor)) void read_plan() {
  const char* folder = getenv("NO_MEMORY");
  if (folder == nullptr) return;
  char path[512], text[64] = {};
  snprintf(path, sizeof path, "%s/%s", folder, program_invocation_short_name);
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  long processes = 0, allocations = 0;
  const bool is_read = read(fd, text, sizeof text - 1) > 0 && sscanf(text, "%ld %ld", &processes, &allocations) == 2;
  if (is_read && processes > 0) {
    const int length = snprintf(text, sizeof text, "%ld %ld\n", processes - 1, allocations);
    (void)!pwrite(fd, text, static_cast<size_t>(length), 0);
  } else {
    unlink(path);
    allocations_left = is_read ? allocations : kNever;
  }
  close(fd);
}

}  // namespace

extern "C" {

void* malloc(size_t bytes) { return fails() ? nullptr : __libc_malloc(bytes); }
void* calloc(size_t count, size_t bytes) { return fails() ? nullptr : __libc_calloc(count, bytes); }
void* realloc(void* memory, size_t bytes) { return fails() ? nullptr : __libc_realloc(memory, bytes); }
void* aligned_alloc(size_t alignment, size_t bytes) { return fails() ? nullptr : __libc_memalign(alignment, bytes); }
void* memalign(size_t alignment, size_t bytes) { return fails() ? nullptr : __libc_memalign(alignment, bytes); }
int posix_memalign(void** memory, size_t alignment, size_t bytes) {
  if (fails()) return ENOMEM;
  *memory = __libc_memalign(alignment, bytes);
  return *memory == nullptr ? ENOMEM : 0;
}

}  // extern "C"
