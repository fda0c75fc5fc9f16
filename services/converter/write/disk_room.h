// Refuses early what would fail after hours: too little room on the target's file system.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"

namespace optserve::converter {

// Whether `bytes` fit beside the folder `output`, which need not exist.
Status check_room(const std::string& output, uint64_t bytes);

}  // namespace optserve::converter
