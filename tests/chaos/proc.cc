#include <unistd.h>

#include <filesystem>
#include <sstream>

#include "support/proc_files.h"
#include "topology.h"

namespace optserve::chaos {

Usage usage_of(pid_t pid) {
  const std::string folder = "/proc/" + std::to_string(pid);
  Usage usage;
  std::istringstream status(test_support::read_proc_file(folder + "/status"));
  for (std::string word; status >> word;) {
    if (word == "VmRSS:") status >> usage.rss_kb;
    if (word == "Threads:") status >> usage.threads;
  }
  std::error_code gone;
  for (auto entry = std::filesystem::directory_iterator(folder + "/fd", gone); !gone && entry != end(entry);
       entry.increment(gone)) {
    ++usage.descriptors;
  }
  return usage;
}

std::vector<std::string> processes_naming(const std::string& folder) {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string pid = entry.path().filename().string();
    if (pid.find_first_not_of("0123456789") != std::string::npos || pid == std::to_string(getpid())) continue;
    const std::string command = test_support::command_line(static_cast<pid_t>(std::stol(pid)));
    if (command.find(folder) != std::string::npos) found.push_back(pid + " " + command.substr(0, 80));
  }
  return found;
}

}  // namespace optserve::chaos
