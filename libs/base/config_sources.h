// Values of options from a YAML file and from environment variables. Internal to the component.
#pragma once

#include <string>
#include <vector>

#include "base/config_entries.h"

namespace optserve::detail {

struct Setting {
  OptionEntry* option = nullptr;
  std::vector<std::string> values;
  std::string source;  // "FILE:LINE" or "variable X"
};

// What the file sets for `command`, from the outermost section to the innermost; the last value of an option counts.
// Checks the keys of every section. Throws ConfigFault.
std::vector<Setting> settings_of_file(const std::string& path, ParserEntry& command);

// What environment variables set for the options of `command`.
std::vector<Setting> settings_of_environment(ParserEntry& command);

// The variable that names the file: "OPTSERVE_CONFIG" for optserve, "OPTSERVE_WORKER_CONFIG" for optserve-worker.
std::string config_variable(const ParserEntry& command);
// The variable of an option, whether it is set or not.
std::string option_variable(const ParserEntry& command, std::string_view option);

// A sentence for each variable that begins with OPTSERVE_ and is read neither by this program nor by another one.
std::vector<std::string> stray_variables(const ParserEntry& command);

}  // namespace optserve::detail
