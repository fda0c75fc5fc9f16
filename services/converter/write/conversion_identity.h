// What tells one conversion from another. A process that is asked for a conversion again, or while another process
// works on it, compares this record before it uses the shards that it finds. A folder that the same conversion has
// already published, perhaps in a process that died before it could report it, is its result.
#pragma once

#include <optional>
#include <string>

#include "checkpoint/writer.h"
#include "converter/vocabulary/tokenizer_files.h"

namespace optserve::converter {

struct ConversionIdentity {
  const checkpoint::ShardPlan& plan;
  const checkpoint::SourceInfo& source;
  const std::optional<TokenizerFiles>& tokenizer;
  bool allow_nonfinite = false;
  bool check_source = true;
  std::string program;  // "optserve 0.1.0"
};

// A JSON object. Conversions with the same record may share finished shards.
std::string conversion_record(const ConversionIdentity& identity);

// Whether the folder has a manifest of the same model, type, quantisation, shards, sources, smoothing and tokenizer,
// and every file that it lists in its size. A source file without an index digest cannot be told from another one and
// counts as different.
bool is_output_of(const std::string& folder, const ConversionIdentity& identity);

}  // namespace optserve::converter
