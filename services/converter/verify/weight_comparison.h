// Every weight of a converted checkpoint against the rows that it was made from, in the memory of its largest tensor.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "checkpoint/reader.h"
#include "converter/weight_rows.h"

namespace optserve::converter {

struct WeightReport {
  uint64_t tensors = 0;
  uint64_t weights = 0;  // replicated ones once for each shard
  double worst = 0;      // the largest error as a part of what rounding may do; 0: every weight is the source's
  // Sum over the tensors of (rms rounding error / rms weight)^2, against the source before any rounding.
  double error_squares = 0;
  std::vector<std::string> faults;  // one for each tensor and shard that does not hold what it should
};

// `source` is of the same model. False from `goes_on` ends the comparison early; it is asked once a tensor. Throws
// Error when a file cannot be read.
WeightReport compare_weights(const checkpoint::CheckpointReader& checkpoint, const WeightRows& source,
                             const std::function<bool()>& goes_on);

}  // namespace optserve::converter
