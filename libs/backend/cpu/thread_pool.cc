#include "backend/cpu/thread_pool.h"

#include "base/check.h"

namespace optserve::backend {
namespace {

constexpr int kSpins = 2000;  // some microseconds: operations of one step follow each other closely

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  check(threads >= 1, "a thread pool has at least the caller");
  for (int thread = 1; thread < threads; ++thread) {
    workers_.emplace_back([this, thread] { work_loop(thread); });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  round_.fetch_add(1);
  round_.notify_all();
}

void ThreadPool::run_on_workers(int64_t items, const void* body, Call call) {
  check(items <= UINT32_MAX, "too many items for one round");
  body_ = body;
  call_ = call;
  unfinished_.store(static_cast<uint32_t>(items), std::memory_order_relaxed);
  const uint32_t round = round_.load(std::memory_order_relaxed) + 1;
  tickets_.store(uint64_t{round} << 32 | static_cast<uint64_t>(items), std::memory_order_release);
  round_.store(round, std::memory_order_release);
  round_.notify_all();
  take_items(round, 0);
  for (int spin = 0; unfinished_.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < kSpins) {
      pause();
    } else if (const uint32_t left = unfinished_.load(std::memory_order_acquire); left != 0) {
      unfinished_.wait(left, std::memory_order_acquire);
    }
  }
}

void ThreadPool::take_items(uint32_t round, int thread) {
  uint64_t ticket = tickets_.load(std::memory_order_acquire);
  while (ticket >> 32 == round && (ticket & UINT32_MAX) != 0) {
    if (!tickets_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
      continue;
    }
    call_(body_, static_cast<int64_t>((ticket & UINT32_MAX) - 1), thread);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
    ticket = tickets_.load(std::memory_order_acquire);
  }
}

void ThreadPool::work_loop(int thread) {
  uint32_t seen = 0;
  while (true) {
    for (int spin = 0; spin < kSpins && round_.load(std::memory_order_acquire) == seen; ++spin) pause();
    round_.wait(seen, std::memory_order_acquire);
    seen = round_.load(std::memory_order_acquire);
    if (stopping_.load()) return;  // read after the round: a thread that sees the last round also sees why it was begun
    take_items(seen, thread);
  }
}

}  // namespace optserve::backend
