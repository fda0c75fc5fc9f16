// Whether this build has AddressSanitizer or ThreadSanitizer: such a build is about ten times slower, and its runtime
// makes system calls and maps memory of its own.
#pragma once

// gcc defines __SANITIZE_ADDRESS__ and __SANITIZE_THREAD__ by itself, and clang 16 does not.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__ 1
#endif
#endif

namespace optserve {

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitizedBuild = true;
#else
inline constexpr bool kSanitizedBuild = false;
#endif

}  // namespace optserve
