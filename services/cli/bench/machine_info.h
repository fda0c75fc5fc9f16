// The machine and the command line of a benchmark, for its result file.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace optserve::cli {

nlohmann::json machine_info();  // host, processor, cores, memory_bytes, kernel

std::string command_line();  // of this process; arguments with special characters are quoted

}  // namespace optserve::cli
