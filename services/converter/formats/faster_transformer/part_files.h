// Folders that Metaseq's convert_metaseq_ft writes for FasterTransformer: one list of tensors in each part-J.pt.
#pragma once

#include <string>
#include <vector>

#include "converter/formats/foreign_checkpoint.h"

namespace optserve::converter {

// Whether the file holds what convert_metaseq_ft writes: a dictionary with a list 'weights'.
bool is_faster_transformer(const checkpoint::PtFile& file);

// The number before ".pt" at the end of a name: 3 for "part-3.pt"; -1 for names without one.
int64_t faster_transformer_part(const std::string& path);

// Opens the parts of one checkpoint. Refuses quantised ones, gaps, and parts that belong to another number of parts
// than there are files.
Result<ForeignCheckpoint> open_faster_transformer(const std::vector<std::string>& paths);

}  // namespace optserve::converter
