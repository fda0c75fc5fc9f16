// One table of limits for what clients send, used by every process that accepts jobs.
#pragma once

#include "protocol/message_types.h"

namespace optserve::protocol {

// Refuses the first field out of its range, naming the field, what is allowed and what was found. Does not know which
// models exist nor how long the prompt is in tokens.
Status validate(const JobSpec& spec);

}  // namespace optserve::protocol
