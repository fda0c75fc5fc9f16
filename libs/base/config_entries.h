// What a ConfigParser knows about its commands and options. Internal to the component.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/config.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace optserve::detail {

struct OptionEntry {
  std::string name;  // without dashes
  std::string help;
  std::string group;                 // heading in the help text
  std::string accepted;              // the values that pass the check: "0 to 7"; empty: all of its type
  std::vector<std::string> choices;  // the words that it accepts, if it is one of few
  std::string default_text;
  std::vector<std::string> other_names;
  bool is_flag = false, is_list = false, is_positional = false, is_required = false, is_hidden = false,
       is_unlogged = false, is_rare = false;
  bool splits_at_commas = false;
  bool has_variable = false;
  CLI::Option* option = nullptr;            // that stores the value; owned by the App
  std::function<std::string()> print{};     // the effective value; empty for positional arguments
  std::function<void()> reset{};            // back to the default; empty for positional arguments
  std::string source{};                     // after parsing, as in ConfigParser::Given; empty: the default
  std::vector<std::string> given_values{};  // after parsing
};

// A program or one of its commands.
struct ParserEntry {
  ParserEntry();
  ~ParserEntry();

  OptionEntry* find(const std::string& option_name);  // also by another name; null if there is none
  ParserEntry* find_command(const std::string& command_name);
  std::string full_name() const;  // "optserve jobs list"

  std::string name, description;
  ParserEntry* parent = nullptr;    // null for the program
  std::unique_ptr<CLI::App> owned;  // empty for a command
  CLI::App* app = nullptr;
  std::vector<std::unique_ptr<ConfigParser>> parsers;  // own the entries in `commands`
  std::vector<ParserEntry*> commands;
  std::deque<OptionEntry> options;                            // in the order of declaration; their addresses stay
  std::vector<std::pair<std::string, std::string>> examples;  // command line, what it does
  std::vector<std::pair<std::string, std::string>> hints;     // word, command
  std::string group;                                          // of the options that come next
  bool uses_environment = false;
  std::vector<std::string> warnings;
};

inline const ParserEntry& program_of(const ParserEntry& command) {
  return command.parent == nullptr ? command : program_of(*command.parent);
}

// The command line, a variable or the file is wrong. parse() prints the message and returns the status.
struct ConfigFault {
  int exit_status = 0;
  std::string message;
};

// "; did you mean 'x'?", or nothing.
std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates, const char* dashes = "");

// The names of options that people can write: hidden ones are left out, other names are included.
std::vector<std::string> option_names(const ParserEntry& command);

}  // namespace optserve::detail
