// Manual pages of a program and its commands, in the language of man(7). Internal to the component.
#pragma once

#include <string>

#include "base/config_entries.h"

namespace optserve::detail {

// The file name of a command's page: "optserve-jobs-list.1". Services are in section 8, other programs in section 1.
std::string manual_name(const ParserEntry& command);
std::string manual_page(const ParserEntry& command);

// Writes the pages of the program and of all its commands into this folder, which must exist. Throws Error.
void write_manual_pages(const ParserEntry& program, const std::string& folder);

}  // namespace optserve::detail
