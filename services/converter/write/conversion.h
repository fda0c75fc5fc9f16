// One conversion while it runs: what is going to be written, and where from.
#pragma once

#include <optional>

#include "checkpoint/writer.h"
#include "converter/reader/caged_model.h"
#include "converter/vocabulary/tokenizer_files.h"
#include "converter/write/convert.h"

namespace optserve::converter {

// All that is referred to outlives the object.
struct Conversion {
  const ConvertOptions& options;
  const CagedModel& source;
  const WeightRows& rows;  // what is stored: those of `source`, or what smoothing and padding make of them
  const checkpoint::ShardPlan& plan;
  const std::optional<TokenizerFiles>& tokenizer;
  checkpoint::SourceInfo origin;  // as the manifest will name it
};

}  // namespace optserve::converter
