// Finds the files of the checkpoint that a path names, and opens them with the opener of their system.
#pragma once

#include <string>

#include "base/error.h"
#include "converter/formats/foreign_checkpoint.h"

namespace optserve::converter {

// `path` is a folder, a file, a glob, or Metaseq's virtual X.pt, which stands for all X-model_part-J.pt. Refuses paths
// that hold no OPT checkpoint of Metaseq, Hugging Face or FasterTransformer, sets of files that are incomplete, and
// models with features that OPT does not have.
Result<ForeignCheckpoint> open_foreign(const std::string& path);

}  // namespace optserve::converter
