// The workers that serve one model (or all converters), those with room in order of expected wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>

#include "scheduler/leases/service_table.h"

namespace optserve::scheduler {

class WorkerIndex {
 public:
  // `wait`: any measure that is comparable within the index; the same for put() and take_out().
  void put(ServiceEntry& worker, double wait) { free_.insert({wait, worker.serial, &worker}); }
  void take_out(ServiceEntry& worker, double wait) { free_.erase({wait, worker.serial, &worker}); }
  bool has_free() const { return !free_.empty(); }
  // The free worker of least wait that `fits`, among the first few; nullptr: none.
  template <class F>
  ServiceEntry* choose(F&& fits) const {
    int looked = 0;
    for (const Place& place : free_) {
      if (++looked > kLookahead) break;
      ++looked_at_;
      if (fits(*place.worker)) return place.worker;
    }
    return nullptr;
  }

  // Workers that are not draining, free or not.
  int serving = 0;
  // Workers that decisions looked at, in all: for tests of their cost.
  uint64_t looked_at() const { return looked_at_; }

 private:
  static constexpr int kLookahead = 32;  // bounds the work of one decision
  struct Place {
    double wait = 0;
    uint64_t serial = 0;
    ServiceEntry* worker = nullptr;
    bool operator<(const Place& other) const { return wait != other.wait ? wait < other.wait : serial < other.serial; }
  };
  std::set<Place> free_;
  mutable uint64_t looked_at_ = 0;
};

}  // namespace optserve::scheduler
