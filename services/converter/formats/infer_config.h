// The sizes of a model, from the shapes of its tensors.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "converter/formats/foreign_checkpoint.h"

namespace optserve::converter {

// `name` becomes the model's name. With `num_heads` 0 the number of heads is what the files say, or that of the
// published model of these sizes. Refuses configurations in the files that contradict the tensors, all faults together.
Result<model_spec::OptConfig> infer_config(const ForeignCheckpoint& foreign, const std::string& name,
                                           int64_t num_heads);

}  // namespace optserve::converter
