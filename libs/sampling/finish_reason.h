// Why an output ended. One definition for the planner, the wire and the scheduler; the numbers are on the wire.
#pragma once

#include <cstdint>

namespace optserve::sampling {

enum class FinishReason : uint8_t {
  kNone = 0,       // it has not ended
  kEndOfText = 1,  // the end-of-text id was drawn
  kLength = 2,     // it has its maximum length
  kStop = 3,       // a stop id or a stop string
  kCancelled = 4,
  kError = 5,  // the model's logits were not finite
};

}  // namespace optserve::sampling
