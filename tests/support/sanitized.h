#pragma once

#include "base/sanitized.h"

namespace optserve::test_support {

// Builds with sanitizers are about ten times slower, so tests do less work in them.
inline constexpr bool kSanitized = kSanitizedBuild;

}  // namespace optserve::test_support
