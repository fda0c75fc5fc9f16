// Checks that what clients ask for is within the limits. Every process that accepts jobs uses it.
#pragma once

#include "protocol/message_types.h"

namespace optserve::protocol {

// Refuses the first field that is out of its range; the message names the field, what was found and what is expected.
// Which models exist and how many tokens the prompt has is checked elsewhere.
Status validate(const JobSpec& spec);

}  // namespace optserve::protocol
