#include <algorithm>
#include <functional>

#include "base/config_texts.h"

namespace optserve::detail {
namespace {

std::string spaced(const std::vector<std::string>& words, const char* separator = " ") {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : separator) + word;
  return text;
}

// The text in single quotes, as bash and zsh read them.
std::string shell_word(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c;
    }
  }
  return out + "'";
}

std::string fish_word(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

// "_optserve_worker" of "optserve-worker".
std::string function_name(const ParserEntry& program) {
  std::string name = "_" + program.name;
  std::ranges::replace(name, '-', '_');
  return name;
}

std::string summary(const std::string& text) {
  const size_t end = std::min(text.find('\n'), std::min(text.find(';'), text.find(". ")));
  return text.substr(0, end);
}

// The word to complete for an option. For a flag that is on by default it is the one that switches it off.
std::string option_word(const OptionEntry& option) {
  return (option.is_flag && option.default_text == "true" ? "--no-" : "--") + option.name;
}

bool is_offered(const OptionEntry& option) { return !option.is_positional && !option.is_hidden; }

// Calls f for the program and each of its commands.
void for_each_command(const ParserEntry& command, const std::function<void(const ParserEntry&)>& f) {
  f(command);
  for (const ParserEntry* child : command.commands) for_each_command(*child, f);
}

std::vector<std::string> command_lines(const ParserEntry& program) {
  std::vector<std::string> lines;
  for_each_command(program, [&](const ParserEntry& command) {
    if (command.parent != nullptr) lines.push_back(shell_word(command.full_name()));
  });
  return lines;
}

// The cases of a shell's `case "$place $before"`, with the words that the option before the cursor accepts.
std::string choice_cases(const ParserEntry& program, const std::function<std::string(const OptionEntry&)>& action) {
  std::string text;
  for_each_command(program, [&](const ParserEntry& command) {
    for (const OptionEntry& option : command.options) {
      if (!is_offered(option) || option.is_flag) continue;
      text += "    " + shell_word(command.full_name() + " --" + option.name) + ") " + action(option) + " ;;\n";
    }
  });
  return text;
}

std::string bash_script(const ParserEntry& program) {
  const std::string function = function_name(program);
  std::string text =
      "# Completion of " + program.name + " for bash, made by '" + program.name + " --completion=bash'\n" + function +
      "() {\n" + "  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} place=" + program.name +
      " words='' i\n  COMPREPLY=()\n"
      "  [[ $word != '=' ]] || word=''\n"
      "  [[ $before != '=' ]] || before=${COMP_WORDS[COMP_CWORD - 2]}\n"
      "  for ((i = 1; i < COMP_CWORD; ++i)); do\n"
      "    case \"$place ${COMP_WORDS[i]}\" in\n";
  const std::vector<std::string> lines = command_lines(program);
  if (!lines.empty()) text += "    " + spaced(lines, " | ") + ") place+=\" ${COMP_WORDS[i]}\" ;;\n";
  text += "    *) ;;\n    esac\n  done\n  case \"$place $before\" in\n";
  text += choice_cases(program, [](const OptionEntry& option) {
    if (option.choices.empty()) return std::string("return");  // a file, perhaps
    return "mapfile -t COMPREPLY < <(compgen -W " + shell_word(spaced(option.choices)) + " -- \"$word\"); return";
  });
  text += "    *) ;;\n  esac\n  case $place in\n";
  for_each_command(program, [&](const ParserEntry& command) {
    std::vector<std::string> words;
    for (const ParserEntry* child : command.commands) words.push_back(child->name);
    for (const OptionEntry& option : command.options) {
      if (is_offered(option)) words.push_back(option_word(option));
    }
    words.emplace_back("--help");
    text += "    " + shell_word(command.full_name()) + ") words=" + shell_word(spaced(words)) + " ;;\n";
  });
  text += "    *) ;;\n  esac\n  if [[ $word != -* ]]; then words=\" $words\"; words=${words// --+([^ ])/}; fi\n";
  return text +
         "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n}\nshopt -s extglob\ncomplete -o default "
         "-F " +
         function + " " + program.name + "\n";
}

// "name:what it is", as _describe wants it.
std::string zsh_item(const std::string& name, const std::string& what) {
  std::string item = name;
  for (size_t at = item.find(':'); at != item.npos; at = item.find(':', at + 2)) item.insert(at, "\\");
  return shell_word(item + ":" + summary(what));
}

std::string zsh_script(const ParserEntry& program) {
  const std::string function = function_name(program);
  std::string text = "#compdef " + program.name + "\n# Made by '" + program.name + " --completion=zsh'\n" + function +
                     "() {\n  local place=" + program.name +
                     " before=${words[CURRENT-1]} i\n  local -a choices\n"
                     "  for ((i = 2; i < CURRENT; ++i)); do\n    case \"$place ${words[i]}\" in\n";
  const std::vector<std::string> lines = command_lines(program);
  if (!lines.empty()) text += "    " + spaced(lines, " | ") + ") place+=\" ${words[i]}\" ;;\n";
  text += "    *) ;;\n    esac\n  done\n  case \"$place $before\" in\n";
  text += choice_cases(program, [](const OptionEntry& option) {
    if (option.choices.empty()) return std::string("_files; return");
    std::vector<std::string> items;
    for (const std::string& choice : option.choices) items.push_back(shell_word(choice));
    return "choices=(" + spaced(items) + "); _describe value choices; return";
  });
  text += "    *) ;;\n  esac\n  case $place in\n";
  for_each_command(program, [&](const ParserEntry& command) {
    std::vector<std::string> commands, options;
    for (const ParserEntry* child : command.commands) commands.push_back(zsh_item(child->name, child->description));
    for (const OptionEntry& option : command.options) {
      if (is_offered(option)) options.push_back(zsh_item(option_word(option), option.help));
    }
    options.push_back(zsh_item("--help", "Explain the options"));
    text += "    " + shell_word(command.full_name()) + ")\n      if [[ $PREFIX == -* ]]; then\n        choices=(" +
            spaced(options, "\n          ") + ")\n        _describe -o option choices\n      ";
    text += commands.empty() ? "else\n        _files\n      fi ;;\n"
                             : "else\n        choices=(" + spaced(commands, "\n          ") +
                                   ")\n        _describe command choices\n      fi ;;\n";
  });
  return text + "    *) ;;\n  esac\n}\nif [[ $funcstack[1] == " + function + " ]]; then\n  " + function +
         " \"$@\"\nelse\n  compdef " + function + " " + program.name + "\nfi\n";
}

std::string fish_script(const ParserEntry& program) {
  const std::string function = "_" + function_name(program) + "_place";
  std::string text = "# Completion of " + program.name + " for fish, made by '" + program.name +
                     " --completion=fish'\n" + "function " + function + "\n  set -l place " + program.name +
                     "\n  for word in (commandline -opc)[2..-1]\n    switch \"$place $word\"\n";
  const std::vector<std::string> lines = command_lines(program);
  if (!lines.empty()) text += "      case " + spaced(lines) + "\n        set place \"$place $word\"\n";
  text += "    end\n  end\n  echo $place\nend\n";
  for_each_command(program, [&](const ParserEntry& command) {
    const std::string here =
        "complete -c " + program.name + " -n 'test \"$(" + function + ")\" = \"" + command.full_name() + "\"'";
    for (const ParserEntry* child : command.commands) {
      text += here + " -f -a " + child->name + " -d " + fish_word(summary(child->description)) + "\n";
    }
    for (const OptionEntry& option : command.options) {
      if (!is_offered(option)) continue;
      text += here + " -l " + option_word(option).substr(2) + " -d " + fish_word(summary(option.help));
      if (!option.choices.empty()) {
        text += " -x -a " + fish_word(spaced(option.choices));
      } else if (!option.is_flag) {
        text += " -r";
      }
      text += "\n";
    }
    text += here + " -l help -d 'Explain the options'\n";
  });
  return text;
}

}  // namespace

std::string completion_script(const ParserEntry& program, std::string_view shell) {
  if (shell == "bash") return bash_script(program);
  return shell == "zsh" ? zsh_script(program) : fish_script(program);
}

}  // namespace optserve::detail
