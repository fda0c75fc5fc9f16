#include "cli/stack/process_identity.h"

#include <fstream>
#include <sstream>

namespace optserve::cli {

std::string ProcessIdentity::text() const {
  return std::to_string(pid) + " " + std::to_string(start_ticks) + " " + boot_id + "\n";
}

std::optional<ProcessIdentity> ProcessIdentity::parse(std::string_view text) {
  std::istringstream words{std::string(text)};
  ProcessIdentity identity;
  if (!(words >> identity.pid >> identity.start_ticks >> identity.boot_id) || identity.pid <= 0) return std::nullopt;
  return identity;
}

std::optional<ProcessIdentity> identify_process(pid_t pid) {
  std::ifstream stat_file("/proc/" + std::to_string(pid) + "/stat");
  std::string stat;
  if (!std::getline(stat_file, stat, '\0')) return std::nullopt;
  const size_t name_end = stat.rfind(')');  // the name may hold spaces and parentheses
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(stat.substr(name_end + 1));
  char state = 0;
  fields >> state;
  if (state == 'Z' || state == 'X') return std::nullopt;
  constexpr int kStartField = 22;  // of proc(5), where the state is field 3
  std::string skipped;
  for (int field = 4; field < kStartField; ++field) fields >> skipped;
  ProcessIdentity identity;
  identity.pid = pid;
  if (!(fields >> identity.start_ticks)) return std::nullopt;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> identity.boot_id;
  return identity;
}

bool is_alive(const ProcessIdentity& identity) { return identify_process(identity.pid) == identity; }

}  // namespace optserve::cli
