// The lock of the process that parses foreign files. After enter_cage() the process can read files, compute and answer,
// and nothing else, whatever the bytes that it reads make it do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "confinement/seccomp_filter.h"

namespace optserve::converter {

enum class SandboxMode : uint8_t {
  kRequire,  // read nothing unless the whole lock is in force
  kTry,      // leave out what the system lacks, with a warning
  kOff,      // a process of its own, but without a lock
};

// From "require", "try" and "off"; nullopt for any other text.
std::optional<SandboxMode> parse_sandbox_mode(std::string_view text);
std::string_view sandbox_mode_name(SandboxMode mode);

// Memory that the process may use besides the shared window.
inline constexpr uint64_t kCageDataBytes = uint64_t{2} << 30;

// Locks this process permanently: no core dump, no growing file, bounded memory, no new privileges, and a filter of
// system calls. The process can still open files for reading, write to `channel_fd` and standard error, and start
// threads. All else fails with EPERM, and calls that no reader of files ever makes (sockets, programs, processes,
// removing and renaming) end the process by SIGSYS. Returns what the system cannot provide; empty if the whole lock is
// in force.
//
// In sanitizer builds memory is not bounded, since their shadow memory would not fit, and no call ends the process, so
// that their reports come out. The filter is the same.
std::string enter_cage(int channel_fd);

// The filter of system calls that enter_cage() loads.
confinement::SeccompFilter cage_filter(int channel_fd,
                                       confinement::Architecture architecture = confinement::Architecture::kNative);

// What enter_cage() would return, found out in a child process. To be called before a program starts threads.
std::string try_cage();

}  // namespace optserve::converter
