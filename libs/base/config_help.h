// The help text of a program or command. Internal to the component.
#pragma once

#include <string>

#include "base/config_entries.h"

namespace optserve::detail {

// With `about`, only the options whose name, heading or description contains this text. Rare options are left out
// unless `with_rare` or asked about.
std::string help_text(const ParserEntry& command, const std::string& about, bool with_rare);

// What help text and manual page say of an option: "--name VALUE", and its help with bounds, default and other names.
std::string option_words(const OptionEntry& option);
std::string option_text(const OptionEntry& option);
// Its first words: "optserve generate [options] [text]".
std::string synopsis(const ParserEntry& command);

}  // namespace optserve::detail
