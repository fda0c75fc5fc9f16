// A command line, split into its command, options with values, and arguments. Internal to the component.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/config_entries.h"

namespace optserve::detail {

struct GivenOption {
  OptionEntry* option = nullptr;
  std::string word;                  // "--name", or "--no-name" for a flag that is switched off
  std::optional<std::string> value;  // empty for a flag without "=value"
};

struct CommandLine {
  ParserEntry* command = nullptr;  // the innermost one that was named
  std::vector<GivenOption> options;
  std::vector<std::string> arguments;
  std::string config_file;
  bool wants_version = false, wants_help = false;
  std::string help_about;        // of "--help=WORD"
  bool wants_all = false;        // --help-all
  bool wants_manual = false;     // --manual
  std::string manual_folder;     // of "--manual=FOLDER"
  std::string completion_shell;  // of "--completion=SHELL"
};

// Options may be written with underscores, and by their other names. Throws ConfigFault for words that are not known,
// with the nearest one that is.
CommandLine read_command_line(ParserEntry& program, const std::vector<std::string>& words);

// The innermost command that the words name, as far as they are known. Never throws.
ParserEntry& command_of(ParserEntry& program, const std::vector<std::string>& words);

}  // namespace optserve::detail
