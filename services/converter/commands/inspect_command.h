// `optserve inspect`: what is in a checkpoint, ours or a foreign one, without converting it.
#pragma once

#include <iosfwd>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/error.h"
#include "conversion/command_options.h"
#include "converter/reader/reader_process.h"

namespace optserve::converter {

// Keys: kind ("optserve", "metaseq", "huggingface", "faster_transformer"), path, layout, config, parameters, dtypes
// {name: tensors}, shards, serves and quantisation (ours only), tokenizer, files [{name, bytes}], tensors [{name,
// dtype, shape, part}], problem (text, absent when the checkpoint can be converted or served), warnings.
Result<nlohmann::json> inspect(const std::string& path, const ReaderSettings& reader = {});

// The same for people; `with_tensors` lists every tensor.
std::string inspect_text(const nlohmann::json& description, bool with_tensors);

// Exit status: 0, 1 damaged, not a checkpoint, or the environment failed.
int run_inspect(const conversion::InspectCommand& command, std::ostream& out, std::ostream& err);

}  // namespace optserve::converter
