#include "base/avx2.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace optserve {

#if defined(__x86_64__)
bool has_avx2() {
  static const bool present = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;  // __builtin_cpu_supports() does not know F16C in every compiler
    const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
    return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  }();
  return present;
}
#else
bool has_avx2() { return false; }
#endif

}  // namespace optserve
