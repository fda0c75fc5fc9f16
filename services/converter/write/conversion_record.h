// What tells one conversion from another, for the folder in which it grows.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "checkpoint/writer.h"
#include "converter/formats/tokenizer_files.h"

namespace optserve::converter {

struct ConversionIdentity {
  const checkpoint::ShardPlan& plan;
  const checkpoint::SourceInfo& source;
  const std::optional<TokenizerFiles>& tokenizer;
  bool allow_nonfinite = false;
  bool check_source = true;
  std::string program;  // "optserve 0.1.0"
};

// A JSON object: conversions whose shards may be mixed have the same.
std::string conversion_record(const ConversionIdentity& identity);

}  // namespace optserve::converter
