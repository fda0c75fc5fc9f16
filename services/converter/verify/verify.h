// Is a converted checkpoint what its source says? Reads both from the start: the files' digests, every weight, and the
// logits of a fixed prompt through the engine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "converter/verify/golden_prompt.h"
#include "converter/verify/weight_comparison.h"
#include "converter/write/convert.h"

namespace optserve::converter {

struct VerifyReport {
  uint64_t files = 0;
  uint64_t file_bytes = 0;
  std::vector<std::string> file_faults;
  WeightReport weights;
  LogitDifference logits;    // from the source's own weights: what rounding does, which nobody judges
  LogitDifference computed;  // from the source's weights rounded as the checkpoint rounds them
  double logit_bound = 0;    // of computed.relative
  std::vector<std::string> logit_faults;

  bool passed() const { return file_faults.empty() && weights.faults.empty() && logit_faults.empty(); }
  std::vector<std::string> faults() const;  // all, with what was checked in front
};

// Verifies `options.output`, which convert(options) has written. Of on_progress only the answer counts, which is
// asked for once a tensor and once a layer: false cancels. Refused: what cannot be opened, a checkpoint of another
// model, and cancellation. Throws Error when the environment fails.
Result<VerifyReport> verify(const ConvertOptions& options);

// Three lines, one for each check.
std::string verify_text(const VerifyReport& report);

}  // namespace optserve::converter
