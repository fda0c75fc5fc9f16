// Runs independent items of one operation on a fixed set of threads. The caller takes part, so a pool of one has no
// threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace optserve::backend {

class ThreadPool {
 public:
  // `threads` counts the caller; at least 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // body(item, thread) for each item in [0, items), in any order, thread in [0, threads()); returns when all are done.
  // One call at a time; `body` must not throw and must not call run().
  template <class Body>
  void run(int64_t items, const Body& body) {
    if (items <= 1 || workers_.empty()) {
      for (int64_t item = 0; item < items; ++item) body(item, 0);
      return;
    }
    run_on_workers(items, &body, [](const void* erased, int64_t item, int thread) {
      (*static_cast<const Body*>(erased))(item, thread);
    });
  }

 private:
  using Call = void (*)(const void* body, int64_t item, int thread);

  void run_on_workers(int64_t items, const void* body, Call call);
  void work_loop(int thread);
  // Runs items of round `round` until none is left.
  void take_items(uint32_t round, int thread);

  // The round is in the upper half, the number of items not yet taken in the lower. An item is taken only from the
  // round it belongs to, so a thread that wakes late finds a later round or nothing, but never a body that no longer
  // exists.
  std::atomic<uint64_t> tickets_{0};
  std::atomic<uint32_t> round_{0};  // what idle threads sleep on
  std::atomic<uint32_t> unfinished_{0};
  std::atomic<bool> stopping_{false};
  const void* body_ = nullptr;
  Call call_ = nullptr;
  std::vector<std::jthread> workers_;
};

}  // namespace optserve::backend
