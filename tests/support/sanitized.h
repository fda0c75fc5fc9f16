#pragma once

namespace optserve::test_support {

// Sanitizer builds compute some ten times slower: the same tests on less work.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace optserve::test_support
