// How a process names itself to others.
#pragma once

#include <string>
#include <string_view>

namespace optserve {

std::string_view build_version();  // "0.1.0"
// What the linker hashed this program to, in hexadecimal: the same for the same bytes. The version where it left none.
std::string build_id();
std::string host_and_pid();  // "node-7:4711", for people

}  // namespace optserve
