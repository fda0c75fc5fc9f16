// Ranks as processes that share one memory file. Each rank has a counter of the chunks that it has offered, and two
// buffers that it fills in turn. It may overwrite a buffer two chunks later, since a peer that has offered the chunk in
// between has read the one before.
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "comm/communicator.h"
#include "comm/reduction.h"

namespace optserve::comm {

namespace {

constexpr uint64_t kMagic = 0x6f70747365727631;  // "optserv1"
constexpr size_t kExchangeBytes = 1 << 20;
constexpr size_t kReasonBytes = 512;
constexpr int kSpins = 40;           // a few microseconds, and no more, since there may be more ranks than cores
constexpr int kPollNs = 50'000'000;  // how often a waiting rank looks for an abort or a dead peer

enum AbortState : uint32_t { kRunning = 0, kWriting = 1, kAborted = 2 };

struct alignas(64) RankArea {
  std::atomic<uint32_t> offered;  // chunks offered so far, modulo 2^32; futex word
  std::atomic<uint32_t> waiters;  // ranks that sleep until `offered` changes
  std::atomic<int32_t> pid;       // 0 until the rank has mapped the memory
  uint64_t tags[2];               // operation and size of the chunk in each buffer
};

struct GroupArea {
  uint64_t magic;
  uint64_t world;
  std::atomic<uint32_t> abort_state;
  char reason[kReasonBytes];
  RankArea ranks[limits::kWorldSizeMax];
};

static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);

constexpr size_t kBuffersAt = (sizeof(GroupArea) + 4095) / 4096 * 4096;

size_t group_bytes(int world) { return kBuffersAt + static_cast<size_t>(world) * 2 * kExchangeBytes; }

void futex_wait(std::atomic<uint32_t>& word, uint32_t expected) {
  const timespec timeout{0, kPollNs};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, expected, &timeout, nullptr, 0);
}

void futex_wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, limits::kWorldSizeMax, nullptr, nullptr, 0);
}

void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

enum class Collective : uint64_t { kReduce = 1, kGather, kBroadcast, kBytes, kBarrier };

const char* name_of(Collective operation) {
  static constexpr const char* kNames[] = {"",          "all_reduce_sum",  "all_gather",
                                           "broadcast", "broadcast_bytes", "barrier"};
  return kNames[static_cast<size_t>(operation)];
}

class ProcessCommunicator final : public Communicator {
 public:
  ProcessCommunicator(const ProcessGroupMemory& memory, int rank, int world, int timeout_ms, const Clock& clock)
      : rank_(rank), world_(world), timeout_(timeout_ms), clock_(clock), pidfds_(static_cast<size_t>(world), -1) {
    check(world >= 1 && world <= limits::kWorldSizeMax && rank >= 0 && rank < world, "rank of a process group");
    struct stat file {};
    if (fstat(memory.fd, &file) != 0) throw errno_error("fstat of the group's memory");
    if (memory.bytes != group_bytes(world) || static_cast<size_t>(file.st_size) != memory.bytes) {
      throw Error("the group's memory has " + std::to_string(file.st_size) + " bytes, a group of " +
                  std::to_string(world) + " needs " + std::to_string(group_bytes(world)));
    }
    void* mapped = mmap(nullptr, memory.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.fd, 0);
    if (mapped == MAP_FAILED) throw errno_error("mmap of the group's memory");
    area_ = static_cast<GroupArea*>(mapped);
    if (area_->magic != kMagic || area_->world != static_cast<uint64_t>(world)) {
      munmap(mapped, memory.bytes);
      throw Error("the group's memory was made for another group size or build");
    }
    mine().pid.store(getpid());
  }

  ~ProcessCommunicator() override {
    munmap(area_, group_bytes(world_));
    for (int fd : pidfds_) {
      if (fd >= 0) close(fd);
    }
  }

  ProcessCommunicator(const ProcessCommunicator&) = delete;
  ProcessCommunicator& operator=(const ProcessCommunicator&) = delete;

  int rank() const override { return rank_; }
  int world() const override { return world_; }

  void all_reduce_sum(Tensor x) override {
    check_host_block(x);
    const size_t width = dtype_bytes(x.dtype());
    for_chunks(x.bytes(), [&](size_t begin, size_t bytes) {
      char* data = static_cast<char*>(x.raw()) + begin;
      offer(Collective::kReduce, x.bytes(), data, bytes);
      wait_for_all(count_, Collective::kReduce);
      const void* blocks[limits::kWorldSizeMax];
      for (int peer = 0; peer < world_; ++peer) blocks[peer] = buffer(peer);
      const std::span<const void* const> all(blocks, static_cast<size_t>(world_));
      sum_in_order(x.dtype(), all, static_cast<int64_t>(bytes / width), data);
    });
  }

  void all_gather(Tensor x, Tensor out) override {
    check_host_block(x);
    check_host_block(out);
    check_eq(out.bytes(), x.bytes() * static_cast<size_t>(world_), "bytes gathered");
    for_chunks(x.bytes(), [&](size_t begin, size_t bytes) {
      offer(Collective::kGather, x.bytes(), static_cast<const char*>(x.raw()) + begin, bytes);
      wait_for_all(count_, Collective::kGather);
      for (int peer = 0; peer < world_; ++peer) {
        std::memcpy(static_cast<char*>(out.raw()) + static_cast<size_t>(peer) * x.bytes() + begin, buffer(peer), bytes);
      }
    });
  }

  void broadcast(Tensor x, int root) override {
    check_host_block(x);
    for_chunks(x.bytes(), [&](size_t begin, size_t bytes) {
      char* data = static_cast<char*>(x.raw()) + begin;
      send_or_receive(Collective::kBroadcast, x.bytes(), data, bytes, root);
    });
  }

  void broadcast_bytes(std::vector<uint8_t>& bytes, int root) override {
    uint64_t size = bytes.size();
    throw_if_aborted();
    unlimited_ = rank_ != root;  // an idle group waits here for its root
    send_or_receive(Collective::kBytes, sizeof size, reinterpret_cast<char*>(&size), sizeof size, root);
    unlimited_ = false;
    bytes.resize(size);
    for_chunks(size, [&](size_t begin, size_t count) {
      send_or_receive(Collective::kBytes, size, reinterpret_cast<char*>(bytes.data()) + begin, count, root);
    });
  }

  void barrier() override {
    throw_if_aborted();
    unlimited_ = true;
    offer(Collective::kBarrier, 0, nullptr, 0);
    wait_for_all(count_, Collective::kBarrier);
    unlimited_ = false;
  }

  void abort(const std::string& reason) override {
    uint32_t expected = kRunning;
    if (area_->abort_state.compare_exchange_strong(expected, kWriting)) {
      const size_t length = std::min(reason.size(), kReasonBytes - 1);
      std::memcpy(area_->reason, reason.data(), length);
      area_->reason[length] = '\0';
      area_->abort_state.store(kAborted);
    }
    for (int peer = 0; peer < world_; ++peer) futex_wake_all(area_->ranks[peer].offered);
  }

  void throw_if_lost() override {
    throw_if_aborted();
    for (int peer = 0; peer < world_; ++peer) {
      if (peer == rank_ || !is_dead(peer)) continue;
      abort("group aborted by rank " + std::to_string(rank_) + ": rank " + std::to_string(peer) + " died");
      throw_if_aborted();
    }
  }

 private:
  RankArea& mine() { return area_->ranks[rank_]; }
  // The buffer of `peer` for the current chunk.
  char* buffer(int peer) const {
    return reinterpret_cast<char*>(area_) + kBuffersAt + (static_cast<size_t>(peer) * 2 + count_ % 2) * kExchangeBytes;
  }

  template <class Body>
  void for_chunks(size_t total, const Body& body) {
    throw_if_aborted();
    for (size_t begin = 0; begin < total; begin += kExchangeBytes) body(begin, std::min(kExchangeBytes, total - begin));
  }

  // Copies `data`, if there is any, to this rank's buffer and counts the chunk. Waits first until all peers have
  // offered the previous chunk: until then they may still read this buffer, which holds the chunk before that.
  void offer(Collective operation, size_t total, const char* data, size_t bytes) {
    wait_for_all(count_, operation);
    ++count_;
    if (data != nullptr) std::memcpy(buffer(rank_), data, bytes);
    mine().tags[count_ % 2] = static_cast<uint64_t>(operation) << 56 | total;
    mine().offered.store(count_);
    if (mine().waiters.load() > 0) futex_wake_all(mine().offered);
  }

  void send_or_receive(Collective operation, size_t total, char* data, size_t bytes, int root) {
    offer(operation, total, rank_ == root ? data : nullptr, bytes);
    if (rank_ == root) return;
    wait_for(root, count_, operation);
    std::memcpy(data, buffer(root), bytes);
  }

  void wait_for_all(uint32_t count, Collective operation) {
    for (int peer = 0; peer < world_; ++peer) {
      if (peer != rank_) wait_for(peer, count, operation);
    }
  }

  // Returns once `peer` has offered `count` chunks. Sleeps meanwhile, but wakes several times a second to look for an
  // abort or a dead peer.
  void wait_for(int peer, uint32_t count, Collective operation) {
    RankArea& theirs = area_->ranks[peer];
    const auto reached = [&] { return static_cast<int32_t>(theirs.offered.load() - count) >= 0; };
    for (int spin = 0; spin < kSpins && !reached(); ++spin) pause_cpu();
    const Instant start = clock_.now();
    while (!reached()) {
      throw_if_aborted();
      theirs.waiters.fetch_add(1);
      const uint32_t seen = theirs.offered.load();
      if (static_cast<int32_t>(seen - count) < 0) futex_wait(theirs.offered, seen);
      theirs.waiters.fetch_sub(1);
      if (reached()) break;
      throw_if_aborted();
      if (is_dead(peer) && !reached()) fail("rank " + std::to_string(peer) + " died", operation);
      if (!unlimited_ && clock_.now() - start > timeout_) {
        fail("rank " + std::to_string(peer) + " did not come within " + std::to_string(timeout_.count()) + " ms",
             operation);
      }
    }
    check_tag(peer, count, operation);
  }

  // A peer that is in a different operation is a bug of the caller. Ending the group is better than computing wrong
  // sums.
  void check_tag(int peer, uint32_t count, Collective operation) {
    if (area_->ranks[peer].tags[count % 2] != mine().tags[count % 2]) {
      fail("rank " + std::to_string(peer) + " calls another operation or size than rank " + std::to_string(rank_),
           operation);
    }
  }

  bool is_dead(int peer) {
    const pid_t pid = area_->ranks[peer].pid.load();
    if (pid == 0) return false;  // not started yet
    int& fd = pidfds_[static_cast<size_t>(peer)];
    if (fd < 0) fd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    if (fd < 0) return errno == ESRCH || (kill(pid, 0) != 0 && errno == ESRCH);
    pollfd exited{fd, POLLIN, 0};  // readable once the process has ended, reaped or not
    return poll(&exited, 1, 0) > 0;
  }

  void throw_if_aborted() const {
    if (area_->abort_state.load() == kRunning) return;
    // A peer may be writing its reason at this moment.
    for (int i = 0; i < 100 && area_->abort_state.load() == kWriting; ++i) usleep(1000);
    throw Error(area_->abort_state.load() == kAborted ? std::string(area_->reason) : "aborted");
  }

  [[noreturn]] void fail(const std::string& what, Collective operation) {
    abort("group aborted by rank " + std::to_string(rank_) + ": " + what + " (" + name_of(operation) + ")");
    throw_if_aborted();
    throw Error(what);
  }

  int rank_;
  int world_;
  milliseconds timeout_;
  const Clock& clock_;
  bool unlimited_ = false;  // the current operation has no time limit while its peers live
  uint32_t count_ = 0;      // chunks that this rank has offered, modulo 2^32
  GroupArea* area_ = nullptr;
  std::vector<int> pidfds_;  // by rank; -1 until one is first needed
};

}  // namespace

ProcessGroupMemory create_process_group_memory(int world) {
  check(world >= 1 && world <= limits::kWorldSizeMax, "size of a process group");
  const int fd = memfd_create("optserve-group", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) throw errno_error("memfd_create for a rank group");
  const size_t bytes = group_bytes(world);
  const uint64_t header[2] = {kMagic, static_cast<uint64_t>(world)};  // everything after it is zero at the start
  if (ftruncate(fd, static_cast<off_t>(bytes)) != 0 || pwrite(fd, header, sizeof header, 0) != sizeof header ||
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    const Error error = errno_error("sizing the memory of a rank group to " + std::to_string(bytes) + " bytes");
    close(fd);
    throw error;
  }
  return {fd, bytes};
}

std::unique_ptr<Communicator> make_process_communicator(const ProcessGroupMemory& memory, int rank, int world,
                                                        int timeout_ms, const Clock& clock) {
  return std::make_unique<ProcessCommunicator>(memory, rank, world, timeout_ms, clock);
}

}  // namespace optserve::comm
