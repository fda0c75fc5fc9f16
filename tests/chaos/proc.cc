#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "topology.h"

namespace optserve::chaos {
namespace {

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

Usage usage_of(pid_t pid) {
  const std::string folder = "/proc/" + std::to_string(pid);
  Usage usage;
  std::istringstream status(read_all(folder + "/status"));
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

std::vector<pid_t> children_of(pid_t pid) {
  const std::string id = std::to_string(pid);
  std::istringstream words(read_all("/proc/" + id + "/task/" + id + "/children"));
  std::vector<pid_t> children;
  for (pid_t child = 0; words >> child;) children.push_back(child);
  return children;
}

std::vector<std::string> processes_naming(const std::string& folder) {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string pid = entry.path().filename().string();
    if (pid.find_first_not_of("0123456789") != std::string::npos || pid == std::to_string(getpid())) continue;
    std::string command = read_all(entry.path().string() + "/cmdline");
    std::replace(command.begin(), command.end(), '\0', ' ');
    if (command.find(folder) != std::string::npos) found.push_back(pid + " " + command.substr(0, 80));
  }
  return found;
}

}  // namespace optserve::chaos
