// The seam between the worker's message side and its engine thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "batching/planner.h"

namespace optserve::worker {

// What the engine thread reports about one generation.
struct EngineEvent {
  batching::SequenceEvent event;
  std::optional<Refusal> refused;  // the generation was never started; `event` holds its id only
};

class EnginePort {
 public:
  virtual ~EnginePort() = default;
  virtual void add(batching::SequenceRequest request) = 0;
  virtual void cancel(batching::SequenceId id) = 0;
  virtual uint64_t steps() const = 0;  // finished so far
};

}  // namespace optserve::worker
