// A list of system calls and what happens to each, as libseccomp makes it. The only includer of seccomp.h.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace optserve::confinement {

// What happens to a call.
enum class Verdict : uint8_t {
  kAllow,
  kRefuse,   // fails with EPERM
  kUnknown,  // fails with ENOSYS, as on a kernel that does not have the call: the C library then uses an older one
  kKill,     // ends the process by SIGSYS
};

enum class Architecture : uint8_t { kNative, kX86_64, kArm64 };

// Holds for calls whose argument, under the mask, has this value.
struct ArgumentRule {
  unsigned argument;
  uint64_t mask;
  uint64_t value;
};
inline ArgumentRule equals(unsigned argument, uint64_t value) { return {argument, ~uint64_t{0}, value}; }

class SeccompFilter {
 public:
  // `otherwise` happens to calls without a rule.
  explicit SeccompFilter(Verdict otherwise, Architecture architecture = Architecture::kNative);
  ~SeccompFilter();
  SeccompFilter(SeccompFilter&&) noexcept;
  SeccompFilter(const SeccompFilter&) = delete;
  SeccompFilter& operator=(const SeccompFilter&) = delete;

  // By the name of the call; one that the architecture does not have needs no rule. Of several rules with arguments for
  // one call any may hold; a rule without arguments outranks them.
  void add(Verdict verdict, std::string_view call, std::initializer_list<ArgumentRule> arguments = {});
  void add(Verdict verdict, std::span<const std::string_view> calls);

  // Puts the filter into force for all threads of this process and what they start, for good. 0, or an errno.
  int load();
  // The filter as the kernel gets it: struct sock_filter, 8 bytes each. For tests. Throws Error.
  std::vector<uint64_t> program();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace optserve::confinement
