// The reader's side: opens and parses what it is told to, and answers until nobody asks any more.
#pragma once

#include <cstddef>
#include <span>

#include "converter/formats/foreign_model.h"
#include "converter/reader/caged_model.h"

namespace optserve::converter {

// Opens a foreign checkpoint and says what it is; with `source` set afterwards, its rows can be read.
Result<SourceSummary> summarise(const ReadJob& job, std::optional<Source>& source);

// Answers the questions that come over `channel_fd`, with bytes in `window`, until it is closed. `missing` is what the
// cage lacks, as enter_cage() says; empty if nothing.
void answer_questions(const ReadJob& job, const std::string& missing, int channel_fd, std::span<std::byte> window);

}  // namespace optserve::converter
