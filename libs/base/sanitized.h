// Whether this build has AddressSanitizer or ThreadSanitizer: such a build is about ten times slower, and its runtime
// makes system calls and maps memory of its own.
#pragma once

namespace optserve {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitizedBuild = true;
#else
inline constexpr bool kSanitizedBuild = false;
#endif

}  // namespace optserve
