#include "cli/prompt/prompt_input.h"

#include <utility>

#include "base/nearest_word.h"
#include "cli/text/text_table.h"

namespace optserve::cli {
namespace {

// Far more than the longest prompt, so that a refusal can name the true size, but a limit for an endless block.
constexpr size_t kTypedBytesMax = 64 << 20;
constexpr std::string_view kQuotes = "\"\"\"";
constexpr std::string_view kSpace = " \t\r";

struct CommandWord {
  PromptVerb verb;
  const char* name;
  size_t words_min, words_max;
  const char* usage;
  const char* help;
};
constexpr size_t kAnyNumber = ~size_t{0};
constexpr CommandWord kCommandWords[] = {
    {PromptVerb::kHelp, "help", 0, 0, "/help", "print this list"},
    {PromptVerb::kSet, "set", 1, kAnyNumber, "/set NAME [VALUE ...]",
     "set an option of 'optserve generate', such as top-p; without a value: back to the default"},
    {PromptVerb::kShow, "show", 0, 0, "/show", "print the settings"},
    {PromptVerb::kSave, "save", 1, 1, "/save FILE", "write prompts and answers to a file"},
    {PromptVerb::kAgain, "again", 0, 0, "/again", "the last prompt once more, with the next seed"},
    {PromptVerb::kSeed, "seed", 1, 1, "/seed N", "the same as /set seed N"},
    {PromptVerb::kTokens, "tokens", 1, 1, "/tokens on|off",
     "after each answer, show how probable its tokens were; those that came at once share their mean"},
    {PromptVerb::kContinue, "continue", 0, 0, "/continue", "go on from the last answer"},
    {PromptVerb::kQuit, "quit", 0, 0, "/quit", "end; so does Ctrl-D"},
};

std::string_view trimmed_end(std::string_view text) {
  const size_t last = text.find_last_not_of(kSpace);
  return last == std::string_view::npos ? std::string_view() : text.substr(0, last + 1);
}

Result<PromptAction> read_command(std::string_view line) {
  const size_t end = std::min(line.find_first_of(kSpace), line.size());
  const std::string name(line.substr(0, end));
  std::vector<std::string> names;
  for (const CommandWord& command : kCommandWords) {
    names.emplace_back(command.name);
    if (name != command.name) continue;
    Result<std::vector<std::string>> words = split_words(line.substr(end));
    if (!words.ok()) return words.refusal();
    const size_t count = words.value().size();
    if (count < command.words_min || count > command.words_max) {
      return refuse(ErrorCode::kBadRequest, "expected " + std::string(command.usage));
    }
    return PromptAction{command.verb, "", std::move(words).value()};
  }
  const std::string nearest = nearest_word(name, names);
  return refuse(ErrorCode::kBadRequest,
                "there is no command /" + name + "; " +
                    (nearest.empty() ? std::string("/help lists them") : "did you mean /" + nearest + "?") +
                    " A prompt that begins with a slash is written with two");
}

}  // namespace

Result<std::vector<std::string>> split_words(std::string_view text) {
  std::vector<std::string> words;
  size_t at = 0;
  while ((at = text.find_first_not_of(kSpace, at)) != std::string_view::npos) {
    if (text[at] != '"') {
      const size_t end = std::min(text.find_first_of(kSpace, at), text.size());
      words.emplace_back(text.substr(at, end - at));
      at = end;
      continue;
    }
    std::string word;
    for (++at; at < text.size() && text[at] != '"'; ++at) {
      if (text[at] != '\\' || at + 1 == text.size()) {
        word += text[at];
        continue;
      }
      const char escaped = text[++at];
      word += escaped == 'n' ? '\n' : escaped == 't' ? '\t' : escaped;
    }
    if (at == text.size()) return refuse(ErrorCode::kBadRequest, "a quote (\") is not closed");
    ++at;
    words.push_back(std::move(word));
  }
  return words;
}

void PromptInput::append(std::string_view text) {
  if (text_.size() <= kTypedBytesMax) text_ += text;
}

void PromptInput::clear() {
  text_.clear();
  is_block_ = is_continued_ = false;
}

std::optional<PromptAction> PromptInput::take() {
  PromptAction action{PromptVerb::kPrompt, std::exchange(text_, {}), {}};
  clear();
  if (action.text.find_first_not_of(" \t\r\n") == std::string::npos) return std::nullopt;
  return action;
}

Result<std::optional<PromptAction>> PromptInput::add_line(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (!is_open()) {
    if (line.starts_with('/') && !line.starts_with("//")) {
      Result<PromptAction> command = read_command(line.substr(1));
      if (!command.ok()) return command.refusal();
      return std::optional(std::move(command).value());
    }
    if (line.starts_with("//")) line.remove_prefix(1);
    if (line.starts_with(kQuotes)) {
      is_block_ = true;
      line.remove_prefix(kQuotes.size());
      if (line.empty()) return std::optional<PromptAction>();
    }
  }
  if (is_block_) {
    const std::string_view shown = trimmed_end(line);
    if (!shown.ends_with(kQuotes)) {
      append(line);
      append("\n");
      return std::optional<PromptAction>();
    }
    append(shown.substr(0, shown.size() - kQuotes.size()));
    if (text_.ends_with('\n')) text_.pop_back();  // the quotes had a line of their own
    return take();
  }
  is_continued_ = line.ends_with('\\');
  if (!is_continued_) {
    append(line);
    return take();
  }
  append(line.substr(0, line.size() - 1));
  append("\n");
  return std::optional<PromptAction>();
}

Result<std::optional<PromptAction>> PromptInput::end() {
  if (!is_block_) return take();
  clear();
  return refuse(ErrorCode::kBadRequest,
                "the input ended in a block that three quotes have opened and none have closed");
}

std::string prompt_help() {
  std::vector<std::vector<std::string>> rows;
  for (const CommandWord& command : kCommandWords) rows.push_back({command.usage, command.help});
  return "Whatever is typed is continued by the model. A line that ends with \\ goes on in the next one; \"\"\" opens "
         "and\n"
         "closes a block of lines; a prompt that begins with a slash is written with two. Ctrl-C ends an answer.\n" +
         text_table(rows);
}

}  // namespace optserve::cli
