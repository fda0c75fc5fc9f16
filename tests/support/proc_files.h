// What /proc tells of other processes, each of which may end while it is read: it then reads as empty.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace optserve::test_support {

std::string read_proc_file(const std::string& path);
// Its arguments, a space after each.
std::string command_line(pid_t pid);
std::vector<pid_t> children_of(pid_t pid);

}  // namespace optserve::test_support
