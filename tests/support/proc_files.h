// What /proc says about other processes. A process that ends meanwhile reads as empty.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace optserve::test_support {

std::string read_proc_file(const std::string& path);
// The arguments of a process, with a space after each.
std::string command_line(pid_t pid);
std::vector<pid_t> children_of(pid_t pid);

}  // namespace optserve::test_support
