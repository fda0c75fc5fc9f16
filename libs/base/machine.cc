#include "base/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <vector>

namespace optserve {
namespace {

// Version 1 reports the largest multiple of a page if there is no limit.
constexpr int64_t kNoMemoryLimit = int64_t{1} << 60;

std::vector<std::string> words_of(const std::string& line, char separator = ' ') {
  std::vector<std::string> words;
  std::istringstream stream(line);
  for (std::string word; std::getline(stream, word, separator);) words.push_back(word);
  return words;
}

bool contains(const std::vector<std::string>& words, const std::string& word) {
  return std::ranges::find(words, word) != words.end();
}

// One mounted tree of control groups.
struct Hierarchy {
  bool is_version_2 = false;
  std::string root;  // the group that is mounted
  std::string at;    // the folder where it is mounted
  std::vector<std::string> controllers;
};

std::vector<Hierarchy> mounted_hierarchies(const std::string& root) {
  std::vector<Hierarchy> found;
  std::ifstream file(root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    // "36 35 98:0 /group /folder options - type source its,own,options"
    const std::vector<std::string> words = words_of(line);
    const auto dash = std::ranges::find(words, "-");
    if (words.size() < 6 || words.end() - dash < 4) continue;
    const std::string& type = dash[1];
    if (type != "cgroup" && type != "cgroup2") continue;
    found.push_back({type == "cgroup2", words[3], root + words[4], words_of(dash[3], ',')});
  }
  return found;
}

// The group of this process in a hierarchy: the path of its line "ID:CONTROLLERS:PATH".
std::string group_in(const Hierarchy& hierarchy, const std::string& root) {
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::vector<std::string> controllers = words_of(line.substr(first + 1, second - first - 1), ',');
    const bool is_it =
        hierarchy.is_version_2 ? controllers.empty() : std::ranges::any_of(controllers, [&](const std::string& one) {
          return contains(hierarchy.controllers, one);
        });
    if (is_it) return line.substr(second + 1);
  }
  return "/";
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

double number_in(const std::string& text) { return text.empty() ? -1 : std::strtod(text.c_str(), nullptr); }

void tighten(CgroupLimits& limits, double cores, double bytes) {
  if (cores > 0) limits.cores = limits.cores > 0 ? std::min(limits.cores, cores) : cores;
  if (bytes <= 0 || bytes >= static_cast<double>(kNoMemoryLimit)) return;
  const auto whole = static_cast<int64_t>(bytes);
  limits.memory_bytes = limits.memory_bytes > 0 ? std::min(limits.memory_bytes, whole) : whole;
}

void read_group(const std::string& folder, bool is_version_2, CgroupLimits& limits) {
  if (is_version_2) {
    const std::vector<std::string> quota = words_of(first_line(folder + "/cpu.max"));  // "max 100000", "50000 100000"
    const bool has_quota = quota.size() == 2 && quota[0] != "max" && number_in(quota[1]) > 0;
    const std::string memory = first_line(folder + "/memory.max");
    tighten(limits, has_quota ? number_in(quota[0]) / number_in(quota[1]) : 0, memory == "max" ? 0 : number_in(memory));
    return;
  }
  const double quota = number_in(first_line(folder + "/cpu.cfs_quota_us"));  // -1: none
  const double period = number_in(first_line(folder + "/cpu.cfs_period_us"));
  tighten(limits, quota > 0 && period > 0 ? quota / period : 0,
          number_in(first_line(folder + "/memory.limit_in_bytes")));
}

}  // namespace

CgroupLimits read_cgroup_limits(const std::string& root) {
  CgroupLimits limits;
  for (const Hierarchy& hierarchy : mounted_hierarchies(root)) {
    // A container often sees its own group as the root of the mount, while the path is that of the host.
    std::string below = group_in(hierarchy, root);
    if (hierarchy.root != "/" && below.starts_with(hierarchy.root)) below.erase(0, hierarchy.root.size());
    for (;;) {
      while (below.ends_with('/')) below.pop_back();
      read_group(hierarchy.at + below, hierarchy.is_version_2, limits);
      if (below.empty()) break;
      below.erase(below.rfind('/') == std::string::npos ? 0 : below.rfind('/'));
    }
  }
  return limits;
}

int usable_cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  int cores = sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed)
                                                                  : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  if (const double quota = read_cgroup_limits().cores; quota > 0) {
    cores = std::min(cores, static_cast<int>(std::floor(quota)));
  }
  return std::max(1, cores);
}

int64_t usable_memory_bytes() {
  const int64_t machine = int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  const int64_t limit = read_cgroup_limits().memory_bytes;
  return limit > 0 ? std::min(limit, machine) : machine;
}

}  // namespace optserve
