// Measures how large the inputs of a model's large matrices get: text through a checkpoint on the CPU, layer by layer.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/error.h"
#include "converter/transform/activation_ranges.h"

namespace optserve::converter {

inline constexpr int64_t kCalibrationWindow = 512;  // tokens that are run together, the leading bos_id included

struct CalibrateOptions {
  std::string checkpoint;           // folder of a converted checkpoint with a tokenizer
  std::string text;                 // UTF-8
  int64_t tokens = 8192;            // how many of its first tokens are run; all if it has fewer
  std::function<bool()> goes_on{};  // asked once a layer; false cancels; may be empty
};

// The same checkpoint, text and tokens give the same ranges. Refuses a damaged checkpoint, one without a tokenizer,
// text that is empty or not UTF-8, activations that are not finite, and cancellation. Memory: a layer, or the token
// table, in fp32, and two rows of `hidden` for each token. Throws Error when a file cannot be read.
Result<ActivationRanges> calibrate(const CalibrateOptions& options);

}  // namespace optserve::converter
