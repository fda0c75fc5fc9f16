// The side of the reader process: opens and parses what it is told to, and answers questions until the converter closes
// the channel.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "converter/formats/foreign_model.h"
#include "converter/reader/model_summary.h"
#include "converter/reader/read_job.h"

namespace optserve::converter {

// Opens a foreign checkpoint and says what it is. Sets `model` unless the summary has a problem; then its rows can be
// read.
Result<ModelSummary> summarise(const ReadJob& job, std::optional<ForeignModel>& model);

// Answers the questions that come over `channel_fd`, with bytes in `window`, until it is closed. `missing` is what the
// cage lacks, as enter_cage() says; empty if nothing.
void answer_questions(const ReadJob& job, const std::string& missing, int channel_fd, std::span<std::byte> window);

}  // namespace optserve::converter
