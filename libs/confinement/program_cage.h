// The lock of a service: which system calls it may make, and no new privileges. A service whose code is taken over by
// what it reads from the network can then neither start programs nor reach parts of the kernel that it never needs.
#pragma once

#include <string>
#include <string_view>

#include "base/config.h"
#include "confinement/seccomp_filter.h"

namespace optserve::confinement {

// What a program does besides computing, reading files, threads and sockets, which all may.
struct ProgramNeeds {
  bool writes_files = false;
  bool starts_programs = false;  // and waits for them and signals them
  // Speaks to a driver, whose library may make any call: calls without a rule are allowed then.
  bool drives_devices = false;
};

// One row a program: docs/adr/0037-locked-services.md has the same table.
inline constexpr ProgramNeeds kScheduler{.writes_files = true};
inline constexpr ProgramNeeds kTokenizer{};
inline constexpr ProgramNeeds kGateway{};
inline constexpr ProgramNeeds kGatewayWithFiles{.writes_files = true};
inline constexpr ProgramNeeds kConverter{.writes_files = true, .starts_programs = true};
// A rank may do nothing that its supervisor, which starts it, may not: it opens its log before it locks itself further.
inline constexpr ProgramNeeds kCpuSupervisor{.writes_files = true, .starts_programs = true};
inline constexpr ProgramNeeds kCpuRank{};
inline constexpr ProgramNeeds kGpuSupervisor{.writes_files = true, .starts_programs = true, .drives_devices = true};
inline constexpr ProgramNeeds kGpuRank{.writes_files = true, .drives_devices = true};

// What happens to each system call of a program with these needs.
SeccompFilter filter_of(const ProgramNeeds& needs, Architecture architecture = Architecture::kNative);

// Declares --sandbox: require, try or off.
void add_sandbox_option(ConfigParser& parser, std::string& mode);

// Locks all threads of this process for good, after its command line was read. What the system cannot provide is logged
// with mode "try", and a ConfigurationError with "require"; "off" changes nothing. Sanitizer builds are refused
// the calls of an intruder and nothing else, since their run-time libraries read files and memory in ways of their own.
void enter(const ProgramNeeds& needs, std::string_view mode);

}  // namespace optserve::confinement
