// Folders that Metaseq's convert_metaseq_ft writes for FasterTransformer: one list of tensors in each part-J.pt.
#pragma once

#include <string>
#include <vector>

#include "converter/formats/foreign_model.h"

namespace optserve::converter {

// True for what convert_metaseq_ft writes: a dictionary with a list 'weights'.
bool is_faster_transformer(const checkpoint::PtFile& file);

// A name that ends in a part's number before ".pt": "part-3.pt". -1 for other names.
int64_t faster_transformer_part(const std::string& path);

// Opens the parts of one checkpoint; refuses quantised ones, gaps, and parts of another group size than there are
// files.
Result<ForeignCheckpoint> open_faster_transformer(const std::vector<std::string>& paths);

}  // namespace optserve::converter
