#include "base/config_sources.h"

#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>

#include "base/comma_list.h"
#include "base/exit_status.h"
#include "base/nearest_word.h"

namespace optserve {

std::string environment_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value != nullptr ? value : "";
}

namespace detail {
namespace {

// The variables of services begin with these names; other programs of the same environment ignore them.
constexpr std::string_view kServices[] = {"OPTSERVE_SCHEDULER_", "OPTSERVE_TOKENIZER_", "OPTSERVE_WORKER_",
                                          "OPTSERVE_CONVERTER_", "OPTSERVE_GATEWAY_"};

// Read by whatever connects to a scheduler (keys/process_keys.h).
constexpr std::array<std::string_view, 2> kVariablesOfAll{"OPTSERVE_SECRET_KEY", "OPTSERVE_SERVER_KEY"};

std::string upper_case(std::string_view text) {
  std::string upper;
  for (const char c : text) upper += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return upper;
}

std::string variable_name(const ParserEntry& command, std::string_view option) {
  return upper_case(program_of(command).name) + "_" + upper_case(option);
}

// Kubernetes describes each Service of a namespace by variables such as X_SERVICE_HOST, X_PORT and X_PORT_80_TCP, where
// X is the Service's name. A Service called optserve-worker-http has OPTSERVE_WORKER_HTTP_PORT=tcp://10.0.0.1:80.
bool is_service_link(const std::string& variable) {
  for (size_t at = variable.find('_'); at != std::string::npos; at = variable.find('_', at + 1)) {
    const std::string_view rest = std::string_view(variable).substr(at);
    if (!rest.starts_with("_PORT") && !rest.starts_with("_SERVICE_")) continue;
    if (!environment_variable(variable.substr(0, at) + "_SERVICE_HOST").empty()) return true;
  }
  return false;
}

bool is_known_below(ParserEntry& command, const std::string& name) {
  return command.find(name) != nullptr || std::any_of(command.commands.begin(), command.commands.end(),
                                                      [&](ParserEntry* c) { return is_known_below(*c, name); });
}

void collect_names_below(const ParserEntry& command, std::vector<std::string>& names) {
  for (const std::string& name : option_names(command)) names.push_back(name);
  for (const ParserEntry* child : command.commands) {
    names.push_back(child->name);
    collect_names_below(*child, names);
  }
}

class FileReader {
 public:
  FileReader(std::string path, ParserEntry& command) : path_(std::move(path)), command_(command) {}

  std::vector<Setting> read() {
    try {
      if (access(path_.c_str(), R_OK) != 0) throw errno_error("open " + path_);
      const YAML::Node root = YAML::LoadFile(path_);
      if (!root.IsNull()) read_section(root, program());
    } catch (const YAML::Exception& error) {
      throw ConfigFault{kExitConfiguration, place(error.mark) + ": not YAML: " + error.msg};
    } catch (const Error& error) {
      throw ConfigFault{kExitConfiguration, error.what()};
    }
    return std::move(settings_);
  }

 private:
  ParserEntry& program() const {
    ParserEntry* outermost = &command_;
    while (outermost->parent != nullptr) outermost = outermost->parent;
    return *outermost;
  }
  std::string place(const YAML::Mark& mark) const {
    return mark.is_null() ? path_ : path_ + ":" + std::to_string(mark.line + 1);
  }
  [[noreturn]] void fail(const YAML::Node& node, const std::string& message) const {
    throw ConfigFault{kExitConfiguration, place(node.Mark()) + ": " + message};
  }

  // Whether `section` is the chosen command or one that contains it.
  bool holds(const ParserEntry& section) const {
    for (const ParserEntry* at = &command_; at != nullptr; at = at->parent) {
      if (at == &section) return true;
    }
    return false;
  }

  void read_section(const YAML::Node& map, ParserEntry& section) {
    if (!map.IsMap()) fail(map, "expected 'option: value' lines");
    // Sections are read last, since they apply to fewer commands and take precedence over what is outside of them.
    for (const auto& entry : map) {
      if (!entry.second.IsMap()) read_option(entry.first, entry.second, section);
    }
    for (const auto& entry : map) {
      if (!entry.second.IsMap()) continue;
      const auto name = entry.first.as<std::string>();
      ParserEntry* inner = section.find_command(name);
      if (inner == nullptr) fail_unknown(entry.first, name, section);
      read_section(entry.second, *inner);
    }
  }

  void read_option(const YAML::Node& key, const YAML::Node& value, ParserEntry& section) {
    auto name = key.as<std::string>();
    std::ranges::replace(name, '_', '-');
    if (!is_known_below(section, name)) {
      // "down:" with nothing below it is an empty section.
      if (value.IsNull() && section.find_command(name) != nullptr) return;
      fail_unknown(key, name, section);
    }
    OptionEntry* option = holds(section) ? command_.find(name) : nullptr;
    if (option == nullptr || value.IsNull()) return;
    Setting setting{option, {}, place(key.Mark())};
    if (value.IsSequence() && !option->is_list) fail(value, name + ": expected one value, found a list");
    if (value.IsSequence()) {
      for (const auto& item : value) setting.values.push_back(item.as<std::string>());
    } else {
      setting.values.push_back(value.as<std::string>());
    }
    std::erase_if(settings_, [option](const Setting& earlier) { return earlier.option == option; });
    settings_.push_back(std::move(setting));
  }

  [[noreturn]] void fail_unknown(const YAML::Node& key, const std::string& name, const ParserEntry& section) const {
    std::vector<std::string> names;
    collect_names_below(section, names);
    fail(key, "unknown option '" + name + "' of " + section.full_name() + did_you_mean(name, names));
  }

  std::string path_;
  ParserEntry& command_;
  std::vector<Setting> settings_;
};

}  // namespace

std::vector<Setting> settings_of_file(const std::string& path, ParserEntry& command) {
  return FileReader(path, command).read();
}

std::vector<Setting> settings_of_environment(ParserEntry& command) {
  std::vector<Setting> settings;
  for (OptionEntry& option : command.options) {
    if (!option.has_variable) continue;
    const std::string variable = variable_name(command, option.name);
    const std::string value = environment_variable(variable);
    if (value.empty() || is_service_link(variable)) continue;
    settings.push_back({&option, option.splits_at_commas ? split_at_commas(value) : std::vector<std::string>{value},
                        "variable " + variable});
  }
  return settings;
}

std::string config_variable(const ParserEntry& command) { return variable_name(command, "config"); }

std::string option_variable(const ParserEntry& command, std::string_view option) {
  return variable_name(command, option);
}

std::vector<std::string> stray_variables(const ParserEntry& command) {
  const std::string prefix = upper_case(program_of(command).name) + "_";
  std::vector<std::string> known{config_variable(command)};
  for (const OptionEntry& option : command.options) {
    if (option.has_variable) known.push_back(variable_name(command, option.name));
  }
  std::vector<std::string> warnings;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::string name(text.substr(0, text.find('=')));
    if (std::ranges::find(kVariablesOfAll, name) != kVariablesOfAll.end()) continue;
    if (!name.starts_with("OPTSERVE_") || std::ranges::find(known, name) != known.end() || is_service_link(name)) {
      continue;
    }
    if (std::ranges::any_of(kServices, [&](auto other) { return other != prefix && name.starts_with(other); })) {
      continue;
    }
    // OPTSERVE_MODEL was perhaps meant as OPTSERVE_WORKER_MODEL.
    std::string meant = prefix + name.substr(std::min(name.size(), std::string_view("OPTSERVE_").size()));
    if (std::ranges::find(known, meant) == known.end()) meant = nearest_word(name, known);
    warnings.push_back("variable " + name + " is ignored: " +
                       (command.uses_environment
                            ? "no option of " + program_of(command).name + " has this variable"
                            : "this command takes its options from the command line and --config") +
                       (meant.empty() || meant == known.front() ? "" : "; did you mean " + meant + "?"));
  }
  return warnings;
}

}  // namespace detail
}  // namespace optserve
