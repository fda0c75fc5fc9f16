// The table of commands as a whole: every command has examples, and they are command lines that it accepts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "cli/commands/command.h"

namespace optserve::cli {
namespace commands_test {

// The words of a line as a shell splits them, up to a redirection; of a pipe, those of its last command.
std::vector<std::string> words_of(std::string line) {
  if (const size_t pipe = line.rfind("| "); pipe != std::string::npos) line.erase(0, pipe + 2);
  std::vector<std::string> words;
  bool in_word = false;
  char quote = 0;
  for (const char c : line) {
    if (quote == 0 && (c == '<' || c == '>')) break;
    if (quote == 0 && c == ' ') {
      in_word = false;
      continue;
    }
    if (!in_word) words.emplace_back();
    in_word = true;
    if (quote == 0 && (c == '"' || c == '\'')) {
      quote = c;
    } else if (c == quote) {
      quote = 0;
    } else {
      words.back() += c;
    }
  }
  return words;
}

int parse(const std::vector<std::string>& words) {
  ConfigParser parser("optserve", "");
  const auto commands = declare_commands(parser);
  std::vector<const char*> argv;
  for (const std::string& word : words) argv.push_back(word.c_str());
  return parser.parse(static_cast<int>(argv.size()), argv.data());
}

TEST(Commands, EachHasThreeExamplesThatItTakes) {
  ConfigParser parser("optserve", "");
  const auto commands = declare_commands(parser);
  std::map<std::string, int> counts;
  for (const ConfigParser::Example& example : parser.examples()) {
    ++counts[example.command];
    const std::vector<std::string> words = words_of(example.command_line);
    ASSERT_FALSE(words.empty());
    EXPECT_EQ(words.front(), "optserve") << example.command_line;
    if (example.command_line.find("--help") != std::string::npos) continue;
    testing::internal::CaptureStderr();
    EXPECT_EQ(parse(words), -1) << example.command_line;
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << example.command_line;
  }
  for (const std::string& command : parser.commands()) EXPECT_GE(counts[command], 3) << command;
}

TEST(Commands, HelpIsShortAndHelpAllIsComplete) {
  const auto help = [](const char* option) {
    testing::internal::CaptureStdout();
    EXPECT_EQ(parse({"optserve", "generate", option}), kExitOk);
    return testing::internal::GetCapturedStdout();
  };
  const std::string usual = help("--help"), all = help("--help-all");
  EXPECT_THAT(usual, testing::HasSubstr("--temperature"));
  EXPECT_THAT(usual, testing::Not(testing::HasSubstr("--typical-p")));
  EXPECT_THAT(all, testing::HasSubstr("--typical-p"));
  EXPECT_LT(std::ranges::count(usual, '\n'), 75);
}

}  // namespace commands_test
}  // namespace optserve::cli
