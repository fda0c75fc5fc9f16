// What a program says about its own options: help texts, manual pages, and scripts with which shells complete its
// command line. Internal to the component.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "base/config_entries.h"

namespace optserve::detail {

// The help text of a program or command. With `about`, only the options whose name, heading or description contains
// this text. Rare options are left out unless `with_rare` or asked about.
std::string help_text(const ParserEntry& command, const std::string& about, bool with_rare);

// What help text and manual page say of an option: "--name VALUE", and its help with bounds, default and other names.
std::string option_words(const OptionEntry& option);
std::string option_text(const OptionEntry& option);
// The first line of the usage: "optserve generate [options] [text]".
std::string synopsis(const ParserEntry& command);

// The file name of a command's page: "optserve-jobs-list.1". Services are in section 8, other programs in section 1.
std::string manual_name(const ParserEntry& command);
// The page, in the language of man(7).
std::string manual_page(const ParserEntry& command);
// Writes the pages of the program and of all its commands into this folder, which must exist. Throws Error.
void write_manual_pages(const ParserEntry& program, const std::string& folder);

inline constexpr std::array<std::string_view, 3> kCompletionShells = {"bash", "zsh", "fish"};

// Completes commands, options and the words that an option accepts; other values and arguments as files.
std::string completion_script(const ParserEntry& program, std::string_view shell);

}  // namespace optserve::detail
