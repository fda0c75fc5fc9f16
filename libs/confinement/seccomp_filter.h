// A filter of system calls, made by libseccomp: a list of calls and what happens to each. Product code includes
// seccomp.h only here.
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

// Applies to calls whose argument, under the mask, has this value.
struct ArgumentRule {
  unsigned argument;
  uint64_t mask;
  uint64_t value;
};
inline ArgumentRule equals(unsigned argument, uint64_t value) { return {argument, ~uint64_t{0}, value}; }

class SeccompFilter {
 public:
  // `otherwise` applies to calls without a rule.
  explicit SeccompFilter(Verdict otherwise, Architecture architecture = Architecture::kNative);
  ~SeccompFilter();
  SeccompFilter(SeccompFilter&&) noexcept;
  SeccompFilter(const SeccompFilter&) = delete;
  SeccompFilter& operator=(const SeccompFilter&) = delete;

  // Adds a rule for a call by its name; a call that the architecture does not have is ignored. If there are several
  // rules with arguments for a call, one of them must match; a rule without arguments takes precedence over them.
  void add(Verdict verdict, std::string_view call, std::initializer_list<ArgumentRule> arguments = {});
  void add(Verdict verdict, std::span<const std::string_view> calls);

  // Enforces the filter for good on all threads of this process and on what they start. Returns 0 or an errno.
  int load();
  // The filter in the form for the kernel: struct sock_filter, 8 bytes each. For tests. Throws Error.
  std::vector<uint64_t> program();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace optserve::confinement
