#include "cli/prompt/prompt_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace optserve::cli {
namespace prompt_input_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The prompts and commands of these lines, each as "verb:text|word|word"; refusals as "refused: ...".
std::vector<std::string> read_all(const std::vector<std::string>& lines) {
  PromptInput input;
  std::vector<std::string> found;
  const auto note = [&found](const Result<std::optional<PromptAction>>& read) {
    if (!read.ok()) {
      found.push_back("refused: " + read.refusal().message);
    } else if (read.value()) {
      std::string text = std::to_string(static_cast<int>(read.value()->verb)) + ":" + read.value()->text;
      for (const std::string& word : read.value()->words) text += "|" + word;
      found.push_back(text);
    }
  };
  for (const std::string& line : lines) note(input.add_line(line));
  note(input.end());
  return found;
}

TEST(PromptInput, ALineIsAPromptAndEmptyLinesAreNone) {
  EXPECT_THAT(read_all({"Once", "", "  ", " a  b ", "c\r"}), ElementsAre("0:Once", "0: a  b ", "0:c"));
}

TEST(PromptInput, ABackslashContinuesALine) {
  EXPECT_THAT(read_all({"one\\", "/two\\", "three", "four"}), ElementsAre("0:one\n/two\nthree", "0:four"));
  EXPECT_THAT(read_all({"one\\"}), ElementsAre("0:one\n"));
}

TEST(PromptInput, ThreeQuotesOpenAndCloseABlock) {
  EXPECT_THAT(read_all({"\"\"\"", "/help", "", "a \\", "\"\"\"", "b"}), ElementsAre("0:/help\n\na \\", "0:b"));
  EXPECT_THAT(read_all({"\"\"\"one", "two\"\"\" "}), ElementsAre("0:one\ntwo"));
  EXPECT_THAT(read_all({"\"\"\"one\"\"\""}), ElementsAre("0:one"));
  EXPECT_THAT(read_all({"\"\"\"one"}), ElementsAre(HasSubstr("refused: the input ended in a block")));
}

TEST(PromptInput, ClearForgetsWhatWasBegun) {
  PromptInput input;
  ASSERT_TRUE(input.add_line("\"\"\"one").ok());
  EXPECT_TRUE(input.is_open());
  input.clear();
  EXPECT_FALSE(input.is_open());
  EXPECT_EQ(input.add_line("two").value()->text, "two");
}

TEST(PromptInput, ASlashBeginsACommandAndTwoAPrompt) {
  EXPECT_THAT(read_all({"/set top-p 0.9", "/quit", "//etc", "/set stop \"a b\" \"\\n\\\"\"", "/set stop"}),
              ElementsAre("2:|top-p|0.9", "9:", "0:/etc", "2:|stop|a b|\n\"", "2:|stop"));
}

TEST(PromptInput, CommandsThatAreNotKnownAreRefusedWithTheNearest) {
  EXPECT_THAT(read_all({"/hlep"}), ElementsAre(HasSubstr("there is no command /hlep; did you mean /help?")));
  EXPECT_THAT(read_all({"/usr/bin"}), ElementsAre(HasSubstr("is written with two")));
  EXPECT_THAT(read_all({"/save"}), ElementsAre("refused: expected /save FILE"));
  EXPECT_THAT(read_all({"/seed 1 2"}), ElementsAre("refused: expected /seed N"));
  EXPECT_THAT(read_all({"/save \"x"}), ElementsAre("refused: a quote (\") is not closed"));
}

TEST(PromptInput, HelpNamesEveryCommand) {
  for (const char* command :
       {"/help", "/set NAME", "/show", "/save FILE", "/again", "/seed N", "/tokens on|off", "/continue", "/quit"}) {
    EXPECT_THAT(prompt_help(), HasSubstr(command));
  }
}

}  // namespace prompt_input_test
}  // namespace optserve::cli
