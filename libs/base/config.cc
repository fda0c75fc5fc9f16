#include "base/config.h"

#include <CLI/CLI.hpp>

#include "base/config_entries.h"
#include "base/config_sources.h"
#include "base/config_texts.h"
#include "base/config_words.h"
#include "base/error.h"
#include "base/exit_status.h"
#include "base/input_check.h"
#include "base/nearest_word.h"
#include "base/program.h"
#include "base/termination.h"

namespace optserve {
namespace detail {

ParserEntry::ParserEntry() = default;
ParserEntry::~ParserEntry() = default;

OptionEntry* ParserEntry::find(const std::string& option_name) {
  for (OptionEntry& option : options) {
    if (option.name == option_name || std::ranges::find(option.other_names, option_name) != option.other_names.end()) {
      return &option;
    }
  }
  return nullptr;
}

ParserEntry* ParserEntry::find_command(const std::string& command_name) {
  const auto found = std::ranges::find(commands, command_name, &ParserEntry::name);
  return found == commands.end() ? nullptr : *found;
}

std::string ParserEntry::full_name() const { return parent == nullptr ? name : parent->full_name() + " " + name; }

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates, const char* dashes) {
  const std::string nearest = nearest_word(word, candidates);
  return nearest.empty()
             ? ""
             : std::string("; did you mean ") + (*dashes != 0 ? dashes + nearest : "'" + nearest + "'") + "?";
}

std::vector<std::string> option_names(const ParserEntry& command) {
  std::vector<std::string> names;
  for (const OptionEntry& option : command.options) {
    if (option.is_hidden) continue;
    names.push_back(option.name);
    names.insert(names.end(), option.other_names.begin(), option.other_names.end());
  }
  return names;
}

}  // namespace detail

namespace {

using detail::CommandLine;
using detail::ConfigFault;
using detail::OptionEntry;
using detail::ParserEntry;
using detail::Setting;

constexpr const char* kValue = "the value";

// CLI11 puts "--NAME: " before the message of a check that fails.
template <class Check>
void add_check(OptionEntry& entry, Check check) {
  entry.option->check(CLI::Validator(
      [check](const std::string& text) {
        const Status status = check(text);
        return status.ok() ? std::string() : status.refusal().message;
      },
      ""));
}

template <class Check>
void add_number_check(OptionEntry& entry, Check check) {
  add_check(entry, [check](const std::string& text) {
    double number = 0;
    return CLI::detail::lexical_cast(text, number) ? check(number) : ok_status();  // add() refuses what is not a number
  });
}

template <class T>
Status check_number(const std::string& text) {
  T number{};
  const bool is_negative = std::is_unsigned_v<T> && text.starts_with('-');  // strtoull() would wrap it around
  if (!is_negative && CLI::detail::lexical_cast(text, number)) return ok_status();
  const char* expected = std::is_floating_point_v<T> ? "a number"
                         : std::is_signed_v<T>       ? "a whole number"
                                                     : "a whole number that is not negative";
  return refuse(ErrorCode::kBadRequest, std::string(kValue) + " is '" + text + "', expected " + expected);
}

template <class T>
std::string text_of(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return value;
  } else if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    std::string joined;
    for (const auto& item : value) joined += (joined.empty() ? "" : ",") + item;
    return joined;
  } else if constexpr (std::is_floating_point_v<T>) {
    return number_text(value);
  } else {
    return std::to_string(value);
  }
}

std::vector<std::string> command_path(const ParserEntry& command) {
  if (command.parent == nullptr) return {};
  std::vector<std::string> path = command_path(*command.parent);
  path.push_back(command.name);
  return path;
}

// The command line for CLI11, in which every option has its value: what was given, then what file and variables add.
std::vector<std::string> words_for_cli11(const CommandLine& line, const std::vector<Setting>& settings) {
  std::vector<std::string> words = command_path(*line.command);
  std::vector<std::string> arguments = line.arguments;
  const auto add = [&words](const OptionEntry& option, const std::string& word, const std::string& value) {
    if (option.is_flag) {
      words.push_back(word + "=" + value);
      return;
    }
    words.push_back(word);
    words.push_back(value);
  };
  for (const detail::GivenOption& given : line.options) {
    if (given.value) {
      add(*given.option, given.word, *given.value);
    } else {
      words.push_back(given.word);
    }
  }
  for (const OptionEntry& option : line.command->options) {  // in order: positional arguments need it
    const auto setting = std::ranges::find(settings, &option, &Setting::option);
    if (setting == settings.end()) continue;
    for (const std::string& value : setting->values) {
      if (option.is_positional) {
        arguments.push_back(value);
      } else {
        add(option, "--" + option.name, value);
      }
    }
  }
  if (!arguments.empty()) words.emplace_back("--");
  words.insert(words.end(), arguments.begin(), arguments.end());
  return words;
}

// What variables and the file set but the command line does not. Positional arguments count as one option: if one is
// given, the file adds none.
std::vector<Setting> settings_below(const CommandLine& line) {
  ParserEntry& command = *line.command;
  std::vector<Setting> settings = detail::settings_of_environment(command);
  const std::string file =
      line.config_file.empty() ? environment_variable(detail::config_variable(command)) : line.config_file;
  if (!file.empty()) {
    for (Setting& of_file : detail::settings_of_file(file, command)) {
      if (std::ranges::find(settings, of_file.option, &Setting::option) == settings.end()) {
        settings.push_back(std::move(of_file));
      }
    }
  }
  std::erase_if(settings, [&line](const Setting& setting) {
    if (setting.option->is_positional) return !line.arguments.empty();
    return std::ranges::find(line.options, setting.option, &detail::GivenOption::option) != line.options.end();
  });
  return settings;
}

void note_sources(const CommandLine& line, const std::vector<Setting>& settings) {
  for (OptionEntry& option : line.command->options) {
    if (option.option->count() == 0) continue;
    option.given_values = option.option->results();
    option.source = "command line";
    const auto setting = std::ranges::find(settings, &option, &Setting::option);
    if (setting != settings.end()) option.source = setting->source;
  }
}

// What CLI11 found wrong, and where the value came from.
ConfigFault fault_of(const CLI::ParseError& error, const CommandLine& line, const std::vector<Setting>& settings) {
  std::string message = error.what();
  if (dynamic_cast<const CLI::RequiredError*>(&error) == nullptr) {
    for (const Setting& setting : settings) {
      if (message.find("--" + setting.option->name + ":") == std::string::npos) continue;
      return {kExitConfiguration, message + " (" + setting.source + ")"};
    }
  }
  return {kExitUsage, message + "; see '" + line.command->full_name() + " --help'"};
}

// A service that cannot read its own configuration still reports this in the file that --termination-log names.
void tell_termination(ParserEntry& command, const std::vector<std::string>& words, const std::string& message) {
  constexpr const char* kOption = "termination-log";
  const OptionEntry* option = command.find(kOption);
  if (option == nullptr) return;
  std::string path = environment_variable(detail::option_variable(command, kOption));
  for (auto word = words.begin(); word != words.end(); ++word) {
    if (word->starts_with("--termination-log=")) path = word->substr(word->find('=') + 1);
    if (*word == "--termination-log" && std::next(word) != words.end()) path = *std::next(word);
  }
  set_termination_log(path);
  write_termination_message(message);
}

// What the command line asks of the parser itself: help, a manual page or a completion script.
std::optional<std::string> asked_text(const ParserEntry& program, const CommandLine& line) {
  if (line.wants_help) return detail::help_text(*line.command, line.help_about, line.wants_all);
  if (!line.completion_shell.empty()) return detail::completion_script(program, line.completion_shell);
  if (!line.wants_manual) return std::nullopt;
  if (line.manual_folder.empty()) return detail::manual_page(*line.command);
  detail::write_manual_pages(program, line.manual_folder);
  return "";
}

}  // namespace

ConfigOption& ConfigOption::range_of(double min, double max) {
  entry_->accepted = number_text(min) + " to " + number_text(max);
  add_number_check(*entry_, [=](double number) { return check_range(kValue, number, min, max); });
  return *this;
}

ConfigOption& ConfigOption::above(double min, double max) {
  entry_->accepted = "more than " + number_text(min) + ", at most " + number_text(max);
  add_number_check(*entry_, [=](double number) { return check_above(kValue, number, min, max); });
  return *this;
}

ConfigOption& ConfigOption::choices(std::span<const std::string_view> words) {
  const std::vector<std::string> allowed(words.begin(), words.end());
  for (const std::string& word : allowed) entry_->accepted += (entry_->accepted.empty() ? "" : ", ") + word;
  entry_->choices = allowed;
  add_check(*entry_, [allowed](const std::string& text) {
    const std::vector<std::string_view> views(allowed.begin(), allowed.end());
    return check_choice(kValue, text, views);
  });
  return *this;
}

ConfigOption& ConfigOption::choices(std::initializer_list<std::string_view> words) {
  return choices(std::span(words.begin(), words.size()));
}

ConfigOption& ConfigOption::also(std::initializer_list<std::string_view> names) {
  entry_->other_names.insert(entry_->other_names.end(), names.begin(), names.end());
  return *this;
}

ConfigOption& ConfigOption::separated_by_commas() {
  entry_->splits_at_commas = true;
  entry_->option->delimiter(',');
  return *this;
}

ConfigOption& ConfigOption::unlogged() {
  entry_->is_unlogged = true;
  return *this;
}

ConfigOption& ConfigOption::hidden() {
  entry_->is_hidden = true;
  return *this;
}

ConfigParser::ConfigParser(std::string_view program, std::string_view description)
    : entry_(std::make_unique<ParserEntry>()) {
  entry_->name = program;
  entry_->description = description;
  entry_->group = "Options";
  entry_->owned = std::make_unique<CLI::App>(std::string(description), std::string(program));
  entry_->app = entry_->owned.get();
  entry_->app->set_help_flag();  // parse() prints the help text
}

ConfigParser::ConfigParser(std::unique_ptr<ParserEntry> entry) : entry_(std::move(entry)) {}
ConfigParser::~ConfigParser() = default;

void ConfigParser::use_environment() { entry_->uses_environment = true; }

void ConfigParser::begin_group(std::string_view heading) { entry_->group = heading; }

void ConfigParser::add_example(std::string_view command_line, std::string_view what_it_does) {
  entry_->examples.emplace_back(command_line, what_it_does);
}

std::vector<ConfigParser::Example> ConfigParser::examples() const {
  std::vector<Example> all;
  for (const auto& [line, what] : entry_->examples) all.push_back({entry_->full_name(), line, what});
  for (const auto& parser : entry_->parsers) {
    const std::vector<Example> of_command = parser->examples();
    all.insert(all.end(), of_command.begin(), of_command.end());
  }
  return all;
}

std::vector<std::string> ConfigParser::commands() const {
  if (entry_->commands.empty()) return {entry_->full_name()};
  std::vector<std::string> all;
  for (const auto& parser : entry_->parsers) {
    const std::vector<std::string> of_command = parser->commands();
    all.insert(all.end(), of_command.begin(), of_command.end());
  }
  return all;
}

void ConfigParser::add_hint(std::string_view word, std::string_view command) {
  entry_->hints.emplace_back(word, command);
}

template <class T>
ConfigOption ConfigParser::add(std::string_view name, T& value, std::string_view help) {
  OptionEntry& entry = entry_->options.emplace_back();
  entry.name = name;
  entry.help = help;
  entry.group = entry_->group;
  entry.has_variable = entry_->uses_environment;
  entry.is_flag = std::is_same_v<T, bool>;
  entry.is_list = std::is_same_v<T, std::vector<std::string>>;
  entry.default_text = text_of(value);
  entry.print = [&value] { return text_of(value); };
  entry.reset = [&value, initial = value] { value = initial; };
  const std::string flag = "--" + entry.name;
  if constexpr (std::is_same_v<T, bool>) {
    entry.option = entry_->app->add_flag(flag + ",!--no-" + entry.name, value, entry.help);
  } else {
    entry.option = entry_->app->add_option(flag, value, entry.help);
    if constexpr (std::is_arithmetic_v<T>) add_check(entry, check_number<T>);
  }
  return ConfigOption(entry);
}

template ConfigOption ConfigParser::add(std::string_view, std::string&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, bool&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, int&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, int64_t&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, uint64_t&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, float&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, double&, std::string_view);
template ConfigOption ConfigParser::add(std::string_view, std::vector<std::string>&, std::string_view);

void ConfigParser::mark_rare(std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    OptionEntry* entry = entry_->find(std::string(name));
    check(entry != nullptr, "mark_rare() names an option that was not added");
    entry->is_rare = true;
  }
}

ConfigOption ConfigParser::add_positional(std::string_view name, std::string& value, std::string_view help,
                                          bool required) {
  OptionEntry& entry = entry_->options.emplace_back();
  entry.name = name;
  entry.help = help;
  entry.is_positional = true;
  entry.is_required = required;
  entry.option = entry_->app->add_option(entry.name, value, entry.help)->required(required);
  return ConfigOption(entry);
}

ConfigOption ConfigParser::add_positional(std::string_view name, std::vector<std::string>& values,
                                          std::string_view help, bool required) {
  OptionEntry& entry = entry_->options.emplace_back();
  entry.name = name;
  entry.help = help;
  entry.is_positional = entry.is_list = true;
  entry.is_required = required;
  entry.option = entry_->app->add_option(entry.name, values, entry.help)->required(required);
  return ConfigOption(entry);
}

ConfigParser& ConfigParser::add_command(std::string_view name, std::string_view help, bool& selected) {
  auto command = std::make_unique<ParserEntry>();
  command->name = name;
  command->description = help;
  command->group = "Options";
  command->parent = entry_.get();
  command->app = entry_->app->add_subcommand(command->name, command->description);
  command->app->set_help_flag();
  command->app->callback([&selected] { selected = true; });
  entry_->commands.push_back(command.get());
  entry_->parsers.push_back(std::unique_ptr<ConfigParser>(new ConfigParser(std::move(command))));
  return *entry_->parsers.back();
}

int ConfigParser::parse(int argc, const char* const* argv) {
  const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  const OptionEntry* json = detail::command_of(*entry_, words).find("json");
  const bool as_json = json != nullptr && json->is_flag && std::ranges::find(words, "--json") != words.end();
  try {
    const CommandLine line = detail::read_command_line(*entry_, words);
    if (line.wants_version) {
      std::fputs((entry_->name + " " OPTSERVE_VERSION "\n").c_str(), stdout);
      return kExitOk;
    }
    if (const auto text = asked_text(*entry_, line)) {
      std::fputs(text->c_str(), stdout);
      return kExitOk;
    }
    const std::vector<Setting> settings = settings_below(line);
    std::vector<std::string> all = words_for_cli11(line, settings);
    std::ranges::reverse(all);  // the order that CLI11 expects
    try {
      entry_->app->parse(all);
    } catch (const CLI::ParseError& error) {
      throw fault_of(error, line, settings);
    }
    note_sources(line, settings);
    entry_->warnings = detail::stray_variables(*line.command);
  } catch (const ConfigFault& fault) {
    print_failure({entry_->name, "bad_request", fault.message, fault.exit_status}, as_json);
    tell_termination(detail::command_of(*entry_, words), words, fault.message);
    return fault.exit_status;
  }
  return -1;
}

Status ConfigParser::set(std::string name, const std::vector<std::string>& values) {
  std::ranges::replace(name, '_', '-');
  OptionEntry* entry = entry_->find(name);
  if (entry == nullptr || entry->is_positional) {
    return refuse(ErrorCode::kBadRequest,
                  "there is no option '" + name + "'" + detail::did_you_mean(name, detail::option_names(*entry_)));
  }
  if (values.empty()) {
    entry->reset();
    return ok_status();
  }
  if (values.size() > 1 && !entry->is_list) {
    return refuse(ErrorCode::kBadRequest, name + ": expected one value, found " + std::to_string(values.size()));
  }
  try {
    entry->option->clear();
    for (const std::string& value : values) entry->option->add_result(value);
    entry->option->run_callback();
  } catch (const CLI::ParseError& error) {
    const std::string message = error.what();
    return refuse(ErrorCode::kBadRequest, message.starts_with("--") ? message.substr(2) : message);
  }
  return ok_status();
}

std::vector<std::string> ConfigParser::warnings() const { return entry_->warnings; }

std::vector<ConfigParser::Given> ConfigParser::given() const {
  std::vector<Given> all;
  for (const OptionEntry& option : entry_->options) {
    if (!option.source.empty()) {
      all.push_back({option.name, option.given_values, option.source, option.is_positional, option.is_unlogged});
    }
  }
  return all;
}

std::vector<std::pair<std::string, std::string>> ConfigParser::effective() const {
  std::vector<std::pair<std::string, std::string>> values;
  for (const OptionEntry& option : entry_->options) {
    if (option.print) values.emplace_back(option.name, option.is_unlogged ? "(not shown)" : option.print());
  }
  return values;
}

}  // namespace optserve
