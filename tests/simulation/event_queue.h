// Virtual time: what happens next is what was planned for the earliest moment, and of equal moments what was planned
// first.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/clock.h"

namespace optserve::simulation {

inline constexpr Instant kStart{seconds(1'000'000)};

class EventQueue {
 public:
  // Calls (target.*Method)(argument) at `when`, or at once if that has passed. `target` outlives the queue's events; if
  // a planned call may be outdated by then, the target recognises that by the argument.
  template <auto Method, class T>
  void at(Instant when, T& target, uint64_t argument = 0) {
    const auto run = [](void* self, uint64_t value) { (static_cast<T*>(self)->*Method)(value); };
    events_.push_back({std::max(when, now_), ++planned_, run, &target, argument});
    std::push_heap(events_.begin(), events_.end(), Later{});
  }
  template <auto Method, class T>
  void after(Duration delay, T& target, uint64_t argument = 0) {
    at<Method>(now_ + delay, target, argument);
  }

  Instant now() const { return now_; }
  uint64_t done() const { return done_; }
  bool empty() const { return events_.empty(); }
  void run_next() {
    std::pop_heap(events_.begin(), events_.end(), Later{});
    const Event event = events_.back();
    events_.pop_back();
    now_ = event.when;
    ++done_;
    event.run(event.target, event.argument);
  }

 private:
  struct Event {
    Instant when;
    uint64_t planned;
    void (*run)(void* target, uint64_t argument);
    void* target;
    uint64_t argument;
  };
  struct Later {
    bool operator()(const Event& a, const Event& b) const {
      return a.when != b.when ? a.when > b.when : a.planned > b.planned;
    }
  };

  std::vector<Event> events_;  // a heap
  Instant now_ = kStart;
  uint64_t planned_ = 0;
  uint64_t done_ = 0;
};

}  // namespace optserve::simulation
