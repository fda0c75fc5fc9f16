// The lock of a service: it limits its system calls and lets it gain no privileges. An attacker who takes over a
// service through the network can then neither start programs nor reach parts of the kernel that the service never
// needs.
#pragma once

#include <string>
#include <string_view>

#include "base/config.h"
#include "confinement/seccomp_filter.h"

namespace optserve::confinement {

// What a program does besides what all programs may do: compute, read files, and use threads and sockets.
struct ProgramNeeds {
  bool writes_files = false;
  bool starts_programs = false;  // and waits for and signals them
  // Uses a driver, whose library may make any call, so that calls without a rule are allowed.
  bool drives_devices = false;
};

// One line per program. docs/adr/0037-locked-services.md has the same table.
inline constexpr ProgramNeeds kScheduler{.writes_files = true};
inline constexpr ProgramNeeds kTokenizer{};
inline constexpr ProgramNeeds kGateway{};
inline constexpr ProgramNeeds kGatewayWithFiles{.writes_files = true};
inline constexpr ProgramNeeds kConverter{.writes_files = true, .starts_programs = true};
// A rank inherits the lock of its supervisor, which must therefore allow what the rank does before it adds its own
// lock, such as opening its log.
inline constexpr ProgramNeeds kCpuSupervisor{.writes_files = true, .starts_programs = true};
inline constexpr ProgramNeeds kCpuRank{};
inline constexpr ProgramNeeds kGpuSupervisor{.writes_files = true, .starts_programs = true, .drives_devices = true};
inline constexpr ProgramNeeds kGpuRank{.writes_files = true, .drives_devices = true};

// The filter of the system calls of a program with these needs.
SeccompFilter filter_of(const ProgramNeeds& needs, Architecture architecture = Architecture::kNative);

// Declares --sandbox: require, try or off.
void add_sandbox_option(ConfigParser& parser, std::string& mode);

// Locks all threads of this process for good; called after the command line was read. If the system lacks something,
// mode "try" logs it and "require" throws ConfigurationError; "off" changes nothing. Sanitizer builds are refused only
// the calls that an attacker would make, since their run-time libraries read files and memory in ways of their own.
void enter(const ProgramNeeds& needs, std::string_view mode);

}  // namespace optserve::confinement
