// Work with files, one piece after the other on a thread of its own, so that a slow disk stops no stream.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace optserve::gateway {

class StoreThread {
 public:
  StoreThread() : thread_([this] { run(); }) {}
  ~StoreThread() { stop(); }
  StoreThread(const StoreThread&) = delete;
  StoreThread& operator=(const StoreThread&) = delete;

  // What was not begun is destroyed, and so is what is posted from now on.
  void stop() {
    std::deque<std::function<void()>> left;
    {
      const std::lock_guard lock(mutex_);
      is_stopping_ = true;
      left.swap(work_);
    }
    changed_.notify_one();
    if (thread_.joinable()) thread_.join();
  }

  void post(std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    if (is_stopping_) return;
    work_.push_back(std::move(work));
    changed_.notify_one();
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return is_stopping_ || !work_.empty(); });
      if (is_stopping_) return;
      std::function<void()> work = std::move(work_.front());
      work_.pop_front();
      lock.unlock();
      work();
      work = nullptr;  // what it holds may post more
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace optserve::gateway
