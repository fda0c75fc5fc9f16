// How a process names itself to others.
#pragma once

#include <string>
#include <string_view>

namespace optserve {

std::string_view build_version();  // "0.1.0"
// The linker's hash of this program in hexadecimal, which is the same for the same bytes. The version if the linker
// left no hash.
std::string build_id();
std::string host_and_pid();  // "node-7:4711", for people

}  // namespace optserve
