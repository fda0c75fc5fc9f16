// Identifies a process beyond its end, which a pid does not because the system reuses pids.
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

// Nothing if no process has this pid, or only a zombie.
std::optional<ProcessIdentity> identify_process(pid_t pid);
// True if this very process still runs.
bool is_alive(const ProcessIdentity& identity);

}  // namespace optserve::cli
