// FasterTransformer's other layout, that of its own converters: a folder "N-gpu" with config.ini and one raw file for
// each tensor, or for each part of one that N ranks share.
#pragma once

#include <optional>
#include <string>

#include "converter/formats/foreign_checkpoint.h"

namespace optserve::converter {

// The folder with config.ini: `folder` itself, or the only one of its folders "N-gpu" that has one. nullopt if there is
// none; refused if there are several.
Result<std::optional<std::string>> find_c_model(const std::string& folder);

// Raw files have no headers: their sizes must be those that config.ini gives.
Result<ForeignCheckpoint> open_c_model(const std::string& folder);

}  // namespace optserve::converter
