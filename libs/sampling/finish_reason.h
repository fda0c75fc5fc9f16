// Why a generation ended.
#pragma once

#include <cstdint>

namespace optserve {

// The numbers are on the wire: never renumber, only append.
enum class FinishReason : uint8_t {
  kNone = 0,       // it goes on
  kEndOfText = 1,  // the model's end-of-text id was drawn
  kLength = 2,     // the wanted number of tokens, or the model's context, is reached
  kStop = 3,       // a stop string or stop id
  kCancelled = 4,
  kError = 5,  // logits that are not finite numbers, or another fault of ours
};

}  // namespace optserve
