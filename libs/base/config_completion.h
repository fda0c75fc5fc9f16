// Scripts with which shells complete the command line of a program. Internal to the component.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "base/config_entries.h"

namespace optserve::detail {

inline constexpr std::array<std::string_view, 3> kCompletionShells = {"bash", "zsh", "fish"};

// Completes commands, options and the words that an option accepts; other values and arguments as files.
std::string completion_script(const ParserEntry& program, std::string_view shell);

}  // namespace optserve::detail
