#include "confinement/seccomp_filter.h"

#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "base/error.h"

namespace optserve::confinement {
namespace {

uint32_t action_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::kAllow:
      return SCMP_ACT_ALLOW;
    case Verdict::kRefuse:
      return SCMP_ACT_ERRNO(EPERM);
    case Verdict::kUnknown:
      return SCMP_ACT_ERRNO(ENOSYS);
    case Verdict::kKill:
      break;
  }
  return SCMP_ACT_KILL_PROCESS;
}

uint32_t token_of(Architecture architecture) {
  if (architecture == Architecture::kNative) return seccomp_arch_native();
  return architecture == Architecture::kX86_64 ? SCMP_ARCH_X86_64 : SCMP_ARCH_AARCH64;
}

}  // namespace

struct SeccompFilter::Context {
  scmp_filter_ctx filter = nullptr;
  Verdict otherwise;
  int error = 0;  // the first errno
};

SeccompFilter::SeccompFilter(Verdict otherwise, Architecture architecture) : context_(std::make_unique<Context>()) {
  Context& context = *context_;
  context.otherwise = otherwise;
  context.filter = seccomp_init(action_of(otherwise));
  if (context.filter == nullptr) {
    context.error = ENOMEM;
    return;
  }
  const auto keep_error = [&](int status) {
    if (status != 0 && context.error == 0) context.error = -status;
  };
  keep_error(seccomp_attr_set(context.filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS));
  keep_error(seccomp_attr_set(context.filter, SCMP_FLTATR_CTL_TSYNC, 1));
  keep_error(seccomp_attr_set(context.filter, SCMP_FLTATR_API_SYSRAWRC, 1));  // the kernel's errors are kept
  keep_error(seccomp_attr_set(context.filter, SCMP_FLTATR_CTL_OPTIMIZE, 2));  // a binary search instead of a list
  if (token_of(architecture) == seccomp_arch_native()) return;
  keep_error(seccomp_arch_add(context.filter, token_of(architecture)));
  keep_error(seccomp_arch_remove(context.filter, seccomp_arch_native()));
}

SeccompFilter::SeccompFilter(SeccompFilter&&) noexcept = default;

SeccompFilter::~SeccompFilter() {
  if (context_ && context_->filter != nullptr) seccomp_release(context_->filter);
}

void SeccompFilter::add(Verdict verdict, std::string_view call, std::initializer_list<ArgumentRule> arguments) {
  Context& context = *context_;
  if (context.error != 0 || verdict == context.otherwise) return;
  const int number = seccomp_syscall_resolve_name(std::string(call).c_str());
  if (number == __NR_SCMP_ERROR) return;  // newer than the installed libseccomp
  std::vector<scmp_arg_cmp> rules;
  for (const ArgumentRule& rule : arguments) {
    rules.push_back({rule.argument, SCMP_CMP_MASKED_EQ, rule.mask, rule.value});
  }
  const int status = seccomp_rule_add_array(context.filter, action_of(verdict), number,
                                            static_cast<unsigned>(rules.size()), rules.data());
  if (status != 0 && status != -EDOM) context.error = -status;
}

void SeccompFilter::add(Verdict verdict, std::span<const std::string_view> calls) {
  for (const std::string_view call : calls) add(verdict, call);
}

int SeccompFilter::load() { return context_->error != 0 ? context_->error : -seccomp_load(context_->filter); }

std::vector<uint64_t> SeccompFilter::program() {
  if (context_->error != 0) throw Error(std::string("seccomp: ") + std::strerror(context_->error));
  const int fd = memfd_create("filter", MFD_CLOEXEC);
  if (fd < 0) throw errno_error("memfd_create");
  const int status = seccomp_export_bpf(context_->filter, fd);
  const off_t bytes = lseek(fd, 0, SEEK_END);
  std::vector<uint64_t> words(static_cast<size_t>(bytes < 0 ? 0 : bytes) / sizeof(uint64_t));
  const ssize_t got = pread(fd, words.data(), words.size() * sizeof(uint64_t), 0);
  close(fd);
  if (status != 0) throw Error(std::string("seccomp_export_bpf: ") + std::strerror(-status));
  if (got != bytes) throw errno_error("reading the filter");
  return words;
}

}  // namespace optserve::confinement
