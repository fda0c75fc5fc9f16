// What is typed at `optserve prompt`, line by line: prompts of one or several lines, and commands that begin with a
// slash.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace optserve::cli {

enum class PromptVerb { kPrompt, kHelp, kSet, kShow, kSave, kAgain, kSeed, kTokens, kContinue, kQuit };

struct PromptAction {
  PromptVerb verb = PromptVerb::kPrompt;
  std::string text{};                // of a prompt
  std::vector<std::string> words{};  // of a command, without its name
};

// A line that ends with a backslash goes on in the next one. Three quotes at the start of a line open a block, which
// ends with the line that ends with three quotes. "//" at the start of a prompt stands for "/".
class PromptInput {
 public:
  // Nothing, if more lines belong to it or if the line is empty. Refused: the line is a command that is not known.
  Result<std::optional<PromptAction>> add_line(std::string_view line);
  // Whether the next line continues what was begun.
  bool is_open() const { return is_block_ || is_continued_; }
  void clear();
  // At the end of the input: a prompt that was begun. Refused: a block is not closed.
  Result<std::optional<PromptAction>> end();

 private:
  void append(std::string_view text);
  std::optional<PromptAction> take();

  std::string text_;
  bool is_block_ = false;
  bool is_continued_ = false;
};

// The words of a command. A word in double quotes may hold spaces, and \n, \t, \" and \\ as in C. Refused: quotes that
// are not closed.
Result<std::vector<std::string>> split_words(std::string_view text);

// What /help prints.
std::string prompt_help();

}  // namespace optserve::cli
