// Names a process for longer than its pid does: pids are used again.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace optserve::cli {

struct ProcessIdentity {
  pid_t pid = -1;
  uint64_t start_ticks = 0;  // when it started, in clock ticks since the machine did
  std::string boot_id;       // of this start of the machine

  std::string text() const;  // "PID START BOOT\n"
  static std::optional<ProcessIdentity> parse(std::string_view text);
  bool operator==(const ProcessIdentity&) const = default;
};

// Of a process that runs now; nothing if there is none with this pid (a zombie counts as none).
std::optional<ProcessIdentity> identify_process(pid_t pid);
// True if that very process still runs.
bool is_alive(const ProcessIdentity& identity);

}  // namespace optserve::cli
