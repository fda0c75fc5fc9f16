#include "support/proc_files.h"

#include <algorithm>
#include <fstream>
#include <sstream>

namespace optserve::test_support {

std::string read_proc_file(const std::string& path) {
  // Stream iterators would throw if the process ended between opening and reading; operator<< only sets a flag.
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::string command_line(pid_t pid) {
  std::string text = read_proc_file("/proc/" + std::to_string(pid) + "/cmdline");
  std::replace(text.begin(), text.end(), '\0', ' ');
  return text;
}

std::vector<pid_t> children_of(pid_t pid) {
  const std::string id = std::to_string(pid);
  std::istringstream words(read_proc_file("/proc/" + id + "/task/" + id + "/children"));
  std::vector<pid_t> children;
  for (pid_t child = 0; words >> child;) children.push_back(child);
  return children;
}

}  // namespace optserve::test_support
