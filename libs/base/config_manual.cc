#include <algorithm>
#include <cctype>
#include <fstream>
#include <string_view>

#include "base/config_texts.h"
#include "base/error.h"

namespace optserve::detail {
namespace {

std::string page_title(const ParserEntry& command) {
  std::string title = command.full_name();
  std::ranges::replace(title, ' ', '-');
  return title;
}

std::string section(const ParserEntry& command) { return program_of(command).uses_environment ? "8" : "1"; }

// Escapes what has a meaning to man: backslashes, and quotes and dots at the start of a line. Dashes become plain ASCII
// dashes, so that options can be copied.
std::string plain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool starts_line = out.empty() || out.back() == '\n';
    if (starts_line && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  return out;
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

std::string options_part(const ParserEntry& command) {
  std::vector<std::pair<std::string, std::string>> groups;
  for (const OptionEntry& option : command.options) {
    if (option.is_hidden) continue;
    const std::string heading = option.is_positional ? "Arguments" : option.group;
    auto group = std::ranges::find(groups, heading, &std::pair<std::string, std::string>::first);
    if (group == groups.end()) group = groups.insert(groups.end(), {heading, ""});
    group->second += ".TP\n.B " + plain(option_words(option)) + "\n" + plain(option_text(option)) + "\n";
  }
  std::string text;
  for (const auto& [heading, rows] : groups) text += ".SS " + plain(heading) + "\n" + rows;
  return text;
}

std::string commands_part(const ParserEntry& command) {
  std::string text;
  for (const ParserEntry* child : command.commands) {
    text += ".TP\n.BR " + plain(page_title(*child)) + " (" + section(command) + ")\n" +
            plain(first_line(child->description)) + "\n";
  }
  return text;
}

std::string examples_part(const ParserEntry& command) {
  std::string text;
  for (const auto& [line, what] : command.examples) {
    text += ".PP\n" + plain(what) + ":\n.PP\n.nf\n.RS\n" + plain(line) + "\n.RE\n.fi\n";
  }
  return text;
}

}  // namespace

std::string manual_name(const ParserEntry& command) { return page_title(command) + "." + section(command); }

std::string manual_page(const ParserEntry& command) {
  std::string title = page_title(command), summary = first_line(command.description);
  while (summary.ends_with('.')) summary.pop_back();
  summary[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(summary[0])));
  std::string upper = title;
  std::ranges::transform(upper, upper.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  std::string text =
      ".TH " + plain(upper) + " " + section(command) + " \"\" \"optserve " OPTSERVE_VERSION "\" optserve\n";
  text += ".SH NAME\n" + plain(title) + " \\- " + plain(summary) + "\n";
  text += ".SH SYNOPSIS\n.B " + plain(synopsis(command)) + "\n";
  text += ".SH DESCRIPTION\n" + plain(command.description) + "\n";
  if (!command.commands.empty()) text += ".SH COMMANDS\n" + commands_part(command);
  if (!command.options.empty()) text += ".SH OPTIONS\n" + options_part(command);
  text += ".SS Of every command\n.TP\n.B \\-\\-config FILE\nYAML file with options";
  if (command.uses_environment) text += "; options also come from variables of the environment";
  text +=
      "\n.TP\n.B \\-\\-help, \\-\\-help\\-all, \\-\\-help=WORD\nUsual options, all options, options about something\n";
  if (!command.examples.empty()) text += ".SH EXAMPLES\n" + examples_part(command);
  text +=
      ".SH EXIT STATUS\n0 success, 1 refused or failed, 2 wrong usage, 3 no scheduler answers, 78 wrong configuration, "
      "130 interrupted\n";
  if (command.parent != nullptr) {
    text += ".SH SEE ALSO\n.BR " + plain(page_title(*command.parent)) + " (" + section(command) + ")\n";
  }
  return text;
}

void write_manual_pages(const ParserEntry& program, const std::string& folder) {
  const std::string path = folder + "/" + manual_name(program);
  std::ofstream file(path);
  file << manual_page(program);
  if (!file.flush()) throw errno_error("write " + path);
  for (const ParserEntry* child : program.commands) write_manual_pages(*child, folder);
}

}  // namespace optserve::detail
