#include <algorithm>
#include <string_view>

#include "base/config_texts.h"

namespace optserve::detail {
namespace {

constexpr size_t kColumns = 100;
constexpr size_t kTextColumn = 30;

// "  left       text", the text wrapped in its column.
std::string row(const std::string& left, const std::string& text) {
  std::string lines = "  " + left;
  size_t column = lines.size();
  const auto to_text_column = [&] {
    lines += std::string(kTextColumn - column, ' ');
    column = kTextColumn;
  };
  const auto new_line = [&] {
    lines += "\n";
    column = 0;
    to_text_column();
  };
  if (column + 2 > kTextColumn) {
    new_line();
  } else {
    to_text_column();
  }
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(' ', begin), text.size());
    const size_t size = end - begin;
    if (column > kTextColumn && column + 1 + size > kColumns) new_line();
    if (column > kTextColumn) lines += " ", ++column;
    lines.append(text, begin, size);
    column += size;
    begin = end + 1;
  }
  return lines + "\n";
}

bool contains(std::string_view text, const std::string& word) {
  return std::search(text.begin(), text.end(), word.begin(), word.end(),
                     [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); }) != text.end();
}

bool is_about(const OptionEntry& option, const std::string& about) {
  return contains(option.name, about) || contains(option.group, about) || contains(option.help, about) ||
         std::ranges::any_of(option.other_names, [&](const std::string& name) { return contains(name, about); });
}

// The options under their headings, in the order in which the headings first appear.
std::string options_text(const ParserEntry& command, const std::string& about, bool with_rare) {
  std::vector<std::pair<std::string, std::string>> groups;
  for (const OptionEntry& option : command.options) {
    if (option.is_hidden || (!about.empty() ? !is_about(option, about) : option.is_rare && !with_rare)) continue;
    const std::string heading = option.is_positional ? "Arguments" : option.group;
    auto group = std::ranges::find(groups, heading, &std::pair<std::string, std::string>::first);
    if (group == groups.end()) group = groups.insert(groups.end(), {heading, ""});
    group->second += row(option_words(option), option_text(option));
  }
  std::string text;
  for (const auto& [heading, rows] : groups) text += "\n" + heading + ":\n" + rows;
  return text;
}

}  // namespace

std::string option_words(const OptionEntry& option) {
  if (option.is_positional) return option.name;
  if (!option.is_flag) return "--" + option.name + " VALUE";
  return option.default_text == "true" ? "--no-" + option.name : "--" + option.name;
}

std::string option_text(const OptionEntry& option) {
  std::string text = option.help;
  if (option.is_flag && option.default_text == "true") text = "Switch off: " + text;
  std::string notes;
  const auto note = [&notes](const std::string& part) { notes += (notes.empty() ? "" : "; ") + part; };
  if (!option.accepted.empty()) note(option.accepted);
  if (!option.is_flag && !option.default_text.empty()) note("default " + option.default_text);
  std::string names;
  for (const std::string& name : option.other_names) names += (names.empty() ? "--" : ", --") + name;
  if (!names.empty()) note("also " + names);
  return notes.empty() ? text : text + " [" + notes + "]";
}

std::string synopsis(const ParserEntry& command) {
  std::string text = command.full_name();
  if (!command.commands.empty()) return text + " COMMAND ...";
  text += " [options]";
  for (const OptionEntry& option : command.options) {
    if (!option.is_positional) continue;
    const std::string name = option.name + (option.is_list ? " ..." : "");
    text += option.is_required ? " " + name : " [" + name + "]";
  }
  return text;
}

std::string help_text(const ParserEntry& command, const std::string& about, bool with_rare) {
  std::string text = command.description + "\n\nUsage: " + synopsis(command) + "\n";
  if (about.empty()) {
    if (!command.commands.empty()) text += "\nCommands:\n";
    for (const ParserEntry* child : command.commands) {
      text += row(child->name, child->description.substr(0, child->description.find('\n')));
    }
  }
  text += options_text(command, about, with_rare);
  if (!about.empty()) return text;
  const auto left_out = std::ranges::count_if(
      command.options, [&](const OptionEntry& option) { return option.is_rare && !option.is_hidden && !with_rare; });
  if (left_out > 0) {
    text +=
        "\n" + std::to_string(left_out) + " more option" + (left_out > 1 ? "s" : "") + ", which few need: --help-all\n";
  }
  if (!command.examples.empty()) text += "\nExamples:\n";
  for (const auto& [line, what] : command.examples) text += "  # " + what + "\n  " + line + "\n";
  text += "\nAlso: --config FILE (YAML)";
  if (command.uses_environment) text += ", variables such as those in docs/configuration.md";
  if (command.parent == nullptr) text += ", --version";
  return text + ", --help=WORD for the options about something.\n";
}

}  // namespace optserve::detail
