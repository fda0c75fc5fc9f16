// How a worker group shares its leases among the schedulers that it is registered with. Pure.
//
// Every registered scheduler has a small floor, so that it can start a job at once. The rest goes where jobs are, in
// proportion to those held and waiting there, so that all queues wait about equally long; what no queue asks for is
// headroom that all share. A share grows at once where there is room, and shrinks by half of the way at each update, so
// that queues which empty and fill in turn do not toss the whole group to and fro.
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

  // One for each scheduler; once a heartbeat. Afterwards
  // - a registered scheduler's share is at least its floor, another's 0;
  // - the shares together are at most the total, or the floors where those are more;
  // - no share has grown into leases that another scheduler still holds, beyond its floor.
  void update(const std::vector<CapacityDemand>& demands);
  int32_t share(size_t scheduler) const { return shares_[scheduler]; }

  // Where shares move while `demands` stay as they are.
  static std::vector<int32_t> target(int32_t total, const std::vector<CapacityDemand>& demands);
  // Of each of so many registered schedulers: together at most a sixteenth of the total, and at least one lease.
  static int32_t floor(int32_t total, size_t registered);

 private:
  int32_t total_;
  std::vector<int32_t> shares_;
};

}  // namespace optserve::transport
