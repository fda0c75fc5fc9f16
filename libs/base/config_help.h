// The help text of a program or command. Internal to the component.
#pragma once

#include <string>

#include "base/config_entries.h"

namespace optserve::detail {

// With `about`, only the options whose name, heading or description contains this text.
std::string help_text(const ParserEntry& command, const std::string& about);

}  // namespace optserve::detail
