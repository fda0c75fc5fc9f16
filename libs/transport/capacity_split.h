// How a worker group shares its leases among the schedulers with which it is registered. This is pure computation.
//
// Every registered scheduler always has a small share, its floor, so that it can start a job at once. The rest is
// divided in proportion to the jobs that the schedulers have, running or waiting, so that jobs wait about equally long
// in all queues. What no queue needs is divided equally. A share grows at once if there is room, but shrinks at each
// update by only half of the difference, so that queues that alternately empty and fill do not move the whole group
// back and forth.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace optserve::transport {

// What one scheduler has for the group.
struct CapacityDemand {
  bool registered = false;
  int32_t held = 0;     // leases that it has now
  int64_t waiting = 0;  // jobs in its queue that the group could run
};

class CapacitySplit {
 public:
  // `total`: leases that the group takes at a time, at least 1.
  CapacitySplit(int32_t total, size_t schedulers);

  // `demands` has one entry per scheduler. Called once per heartbeat. Afterwards
  // - the share of a registered scheduler is at least its floor, and that of another is 0;
  // - the sum of the shares is at most the total, or the sum of the floors if that is more;
  // - no share has grown, beyond its floor, into leases that another scheduler still holds.
  void update(const std::vector<CapacityDemand>& demands);
  int32_t share(size_t scheduler) const { return shares_[scheduler]; }

  // The shares that updates lead to if `demands` do not change.
  static std::vector<int32_t> target(int32_t total, const std::vector<CapacityDemand>& demands);
  // The floor of each of `registered` schedulers: together a sixteenth of the total, but at least one lease each.
  static int32_t floor(int32_t total, size_t registered);

 private:
  int32_t total_;
  std::vector<int32_t> shares_;
};

}  // namespace optserve::transport
