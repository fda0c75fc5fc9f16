// The lock of the process that parses foreign files: from enter_cage() on it can read files, compute and answer, and
// nothing else, whatever the bytes it reads make it do.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace optserve::converter {

enum class SandboxMode : uint8_t {
  kRequire,  // without the whole lock nothing is read
  kTry,      // what the system lacks is left out, with a warning
  kOff,      // a process of its own, but no lock
};

// "require", "try", "off"; nullopt for another text.
std::optional<SandboxMode> parse_sandbox_mode(std::string_view text);
std::string_view sandbox_mode_name(SandboxMode mode);

// Memory that the process may take, the shared window apart.
inline constexpr uint64_t kCageDataBytes = uint64_t{2} << 30;

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitizedBuild = true;
#else
inline constexpr bool kSanitizedBuild = false;
#endif

// Locks this process for good: no core, no growing file, bounded memory, no new privileges, and a filter of system
// calls. Files can be opened for reading; `channel_fd` and standard error can be written to; threads can be started.
// Everything else fails with EPERM, and what no reader of files ever does (sockets, programs, processes, removing and
// renaming) ends the process by SIGSYS. Returns what the system could not do; empty: all of it is in force.
//
// In sanitizer builds memory is not bounded, since their shadow memory would not fit, and nothing ends the process, so
// that their reports come out; the filter is the same.
std::string enter_cage(int channel_fd);

// What enter_cage() would return, found out by a process of its own. For the start of a program, before its threads.
std::string try_cage();

}  // namespace optserve::converter
