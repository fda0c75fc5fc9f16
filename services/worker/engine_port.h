// What the message thread of rank 0 asks of its engine thread. Tests of either thread replace the other by a fake.
#pragma once

#include <cstdint>

#include "batching/planner.h"

namespace optserve::worker {

class EnginePort {
 public:
  virtual ~EnginePort() = default;
  virtual void add(batching::SequenceRequest request) = 0;
  virtual void cancel(batching::SequenceId id) = 0;
  virtual uint64_t steps() const = 0;  // finished so far
};

}  // namespace optserve::worker
