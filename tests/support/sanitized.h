#pragma once

namespace optserve::test_support {

// Builds with sanitizers are about ten times slower, so tests do less work in them.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace optserve::test_support
