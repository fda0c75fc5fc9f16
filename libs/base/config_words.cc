#include "base/config_words.h"

#include <algorithm>

#include "base/config_texts.h"
#include "base/exit_status.h"
#include "base/nearest_word.h"

namespace optserve::detail {
namespace {

[[noreturn]] void fail(const ParserEntry& command, const std::string& message) {
  throw ConfigFault{kExitUsage,
                    message + (message.ends_with('?') ? " See '" : "; see '") + command.full_name() + " --help'"};
}

std::vector<std::string> command_names(const ParserEntry& command) {
  std::vector<std::string> names;
  for (const ParserEntry* child : command.commands) names.push_back(child->name);
  return names;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

[[noreturn]] void fail_unknown_command(const ParserEntry& parent, const std::string& word) {
  for (const auto& [hint, command] : parent.hints) {
    if (hint == word) fail(parent, "unknown command '" + word + "'; did you mean '" + command + "'?");
  }
  const std::vector<std::string> names = command_names(parent);
  const std::string nearest = did_you_mean(word, names);
  fail(parent, "unknown command '" + word + "'" + (nearest.empty() ? ", expected one of " + joined(names) : nearest));
}

class Reader {
 public:
  Reader(ParserEntry& program, const std::vector<std::string>& words) : words_(words) { line_.command = &program; }

  CommandLine read() {
    for (; at_ < words_.size(); ++at_) {
      const std::string& word = words_[at_];
      if (word == "--") {
        line_.arguments.insert(line_.arguments.end(), words_.begin() + static_cast<ptrdiff_t>(at_) + 1, words_.end());
        break;
      }
      if (word == "-h") {
        line_.wants_help = true;
      } else if (word.starts_with("--")) {
        read_option(word);
      } else if (word.size() > 1 && word[0] == '-' && std::isalpha(static_cast<unsigned char>(word[1])) != 0) {
        fail(*line_.command,
             "unknown option " + word + did_you_mean(word.substr(1), option_names(*line_.command), "--"));
      } else if (line_.command->commands.empty()) {
        line_.arguments.push_back(word);
      } else {
        read_command(word);
      }
    }
    const bool asks = line_.wants_help || line_.wants_version || line_.wants_manual || !line_.completion_shell.empty();
    if (!asks) check_complete();
    return std::move(line_);
  }

 private:
  void read_command(const std::string& word) {
    if (ParserEntry* command = line_.command->find_command(word)) {
      line_.command = command;
    } else if (word == "help") {
      line_.wants_help = true;
    } else if (word == "version" && line_.command->parent == nullptr) {
      line_.wants_version = true;
    } else {
      fail_unknown_command(*line_.command, word);
    }
  }

  void read_option(const std::string& word) {
    const size_t equals = std::min(word.find('='), word.size());
    std::string name = word.substr(2, equals - 2);
    std::ranges::replace(name, '_', '-');
    std::optional<std::string> value;
    if (equals < word.size()) value = word.substr(equals + 1);
    if (name == "help") {
      line_.wants_help = true;
      line_.help_about = value.value_or("");
    } else if (name == "help-all") {
      line_.wants_help = line_.wants_all = true;
    } else if (name == "manual") {
      line_.wants_manual = true;
      line_.manual_folder = value.value_or("");
    } else if (name == "completion" && line_.command->parent == nullptr) {
      line_.completion_shell = value ? *value : next_word(word);
      if (std::ranges::find(kCompletionShells, line_.completion_shell) == kCompletionShells.end()) {
        fail(*line_.command, "--completion is '" + line_.completion_shell + "', expected bash, zsh or fish");
      }
    } else if (name == "version" && line_.command->parent == nullptr) {
      line_.wants_version = true;
    } else if (name == "config") {
      line_.config_file = value ? *value : next_word(word);
    } else {
      read_known_option(name, word, std::move(value));
    }
  }

  void read_known_option(const std::string& name, const std::string& word, std::optional<std::string> value) {
    OptionEntry* option = line_.command->find(name);
    const bool is_negated = option == nullptr && name.starts_with("no-");
    if (is_negated) option = line_.command->find(name.substr(3));
    if (option == nullptr || option->is_positional || (is_negated && !option->is_flag)) fail_unknown_option(name);
    if (!value && !option->is_flag) value = next_word(word);
    line_.options.push_back({option, (is_negated ? "--no-" : "--") + option->name, std::move(value)});
  }

  std::string next_word(const std::string& option) {
    if (at_ + 1 >= words_.size()) fail(*line_.command, option + " needs a value");
    return words_[++at_];
  }

  [[noreturn]] void fail_unknown_option(const std::string& name) const {
    const ParserEntry& command = *line_.command;
    if (!command.commands.empty()) {
      fail(command, "unknown option --" + name + "; options stand after their command, as in '" +
                        command.commands.front()->full_name() + " --" + name + "'");
    }
    fail(command, "unknown option --" + name + did_you_mean(name, option_names(command), "--"));
  }

  void check_complete() const {
    const ParserEntry& command = *line_.command;
    if (!command.commands.empty()) fail(command, "expected a command: " + joined(command_names(command)));
    std::vector<std::string> places;
    for (const OptionEntry& option : command.options) {
      if (option.is_positional && option.is_list) return;
      if (option.is_positional) places.push_back(option.name);
    }
    if (line_.arguments.size() <= places.size()) return;
    fail(command, "unexpected argument '" + line_.arguments[places.size()] + "': " +
                      (places.empty() ? "the command takes options only" : "the arguments are " + joined(places)) +
                      "; quote patterns and texts with spaces");
  }

  const std::vector<std::string>& words_;
  size_t at_ = 0;
  CommandLine line_;
};

}  // namespace

CommandLine read_command_line(ParserEntry& program, const std::vector<std::string>& words) {
  return Reader(program, words).read();
}

ParserEntry& command_of(ParserEntry& program, const std::vector<std::string>& words) {
  ParserEntry* command = &program;
  for (const std::string& word : words) {
    if (ParserEntry* child = command->find_command(word)) command = child;
  }
  return *command;
}

}  // namespace optserve::detail
