// Whether an output folder is what a conversion would write: a converter that died after it had published the folder
// and before it said so is asked for the same conversion again.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/writer.h"
#include "converter/formats/tokenizer_files.h"

namespace optserve::converter {

// True if the folder has a manifest of the same model, type, quantisation, shards, sources, smoothing and tokenizer,
// and every file that it lists in its size. A source file without an index digest cannot be told from another and
// counts as different.
bool is_output_of(const std::string& folder, const checkpoint::ShardPlan& plan, const checkpoint::SourceInfo& source,
                  const std::optional<TokenizerFiles>& tokenizer);

}  // namespace optserve::converter
