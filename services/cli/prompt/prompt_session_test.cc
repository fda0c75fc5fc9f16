#include "cli/prompt/prompt_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace optserve::cli {
namespace prompt_session_test {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class PromptSessionTest : public ::testing::Test {
 protected:
  Result<PromptStep> type(const std::string& line) {
    PromptInput input;
    const Result<std::optional<PromptAction>> action = input.add_line(line);
    if (!action.ok()) return action.refusal();
    return session_.act(action.value().value());
  }
  std::string answer(const std::string& text, std::vector<float> logprobs = {}) {
    protocol::JobResult result;
    result.text = text;
    result.logprobs = std::move(logprobs);
    return session_.answered(result, false);
  }
  std::string refusal(const std::string& line) {
    const Result<PromptStep> step = type(line);
    return step.ok() ? "" : step.refusal().message;
  }

  PromptSettings settings_;
  PromptSession session_{settings_, "served"};
};

TEST_F(PromptSessionTest, SettingsAreThoseOfTheNextJobs) {
  ASSERT_TRUE(type("/set top_p 0.9").ok());
  ASSERT_TRUE(type("/set max-tokens 7").ok());  // another system's name
  ASSERT_TRUE(type("/set stop a \"b c\"").ok());
  ASSERT_TRUE(type("/seed 12").ok());
  ASSERT_TRUE(type("/set ignore-eos on").ok());
  protocol::JobSpec job = *type("Once").value().job;
  EXPECT_EQ(job.prompt, "Once");
  EXPECT_EQ(job.model, "served");
  EXPECT_FLOAT_EQ(job.sampling.top_p, 0.9f);
  EXPECT_EQ(job.sampling.seed, 12u);
  EXPECT_TRUE(job.sampling.ignore_eos);
  EXPECT_EQ(job.max_new_tokens, 7);
  EXPECT_THAT(job.stop, ::testing::ElementsAre("a", "b c"));
  EXPECT_THAT(type("/show").value().output, HasSubstr("top-p"));
  for (const char* line : {"/set top-p", "/set stop", "/set model other"}) ASSERT_TRUE(type(line).ok()) << line;
  job = *type("Once").value().job;
  EXPECT_FLOAT_EQ(job.sampling.top_p, 1);
  EXPECT_TRUE(job.stop.empty());
  EXPECT_EQ(job.model, "other");
}

TEST_F(PromptSessionTest, WrongSettingsAreRefusedAndChangeNothing) {
  ASSERT_TRUE(type("/set temperature 0.5").ok());
  EXPECT_THAT(refusal("/set temprature 1"), HasSubstr("did you mean 'temperature'?"));
  EXPECT_THAT(refusal("/set temperature hot"), HasSubstr("'hot', expected a number"));
  EXPECT_THAT(refusal("/set temperature 5"), HasSubstr("temperature is 5, expected 0 to 2"));
  EXPECT_THAT(refusal("/set temperature 1 2"), HasSubstr("expected one value, found 2"));
  EXPECT_THAT(refusal("/set prompt x"), HasSubstr("there is no option 'prompt'"));
  EXPECT_THAT(refusal("/set logit-bias 5"), HasSubstr("expected id=bias"));
  EXPECT_THAT(refusal("/seed -1"), HasSubstr("not negative"));
  EXPECT_FLOAT_EQ(type("Once").value().job->sampling.temperature, 0.5f);
}

TEST_F(PromptSessionTest, AgainTakesTheNextSeedAndContinueTheWholeText) {
  EXPECT_EQ(refusal("/again"), "there is no prompt yet");
  EXPECT_EQ(refusal("/continue"), "there is no prompt yet");
  EXPECT_EQ(refusal("/save file"), "there is no prompt yet");
  ASSERT_TRUE(type("Once").ok());
  answer(" upon");
  EXPECT_EQ(type("/continue").value().job->prompt, "Once upon");
  answer(" a time");
  const PromptStep again = type("/again").value();
  EXPECT_EQ(again.job->prompt, "Once");
  EXPECT_EQ(again.job->sampling.seed, 1u);
  EXPECT_EQ(again.output, "seed 1\n");
  answer(" more\n");
  EXPECT_EQ(session_.conversation(), ">>> Once\n upon a time\n\n>>> Once\n more\n");
  EXPECT_EQ(type("/save file").value().save_to, "file");
  ASSERT_TRUE(type("/set temperature 0").ok());
  EXPECT_THAT(type("/again").value().output, HasSubstr("changes nothing"));
}

TEST_F(PromptSessionTest, APromptOfSeveralLinesIsMarkedInTheConversation) {
  ASSERT_TRUE(session_.act({PromptVerb::kPrompt, "a\nb", {}}).ok());
  answer("c");
  EXPECT_EQ(session_.conversation(), ">>> a\n... b\nc\n");
}

TEST_F(PromptSessionTest, TokensAreAskedForAndShown) {
  EXPECT_EQ(type("Once").value().job->sampling.logprobs, -1);
  EXPECT_EQ(answer(" upon", {-0.5f}), "");
  EXPECT_THAT(refusal("/tokens maybe"), HasSubstr("expected on or off"));
  ASSERT_TRUE(type("/tokens on").ok());
  EXPECT_EQ(type("Once").value().job->sampling.logprobs, 0);
  session_.add_piece(" upon", 1);
  EXPECT_THAT(answer(" upon", {-0.6931472f}), StartsWith(" 50%  \" upon\"\n"));
  ASSERT_TRUE(type("/tokens off").ok());
  EXPECT_EQ(type("Once").value().job->sampling.logprobs, -1);
}

TEST_F(PromptSessionTest, APromptThatIsTooLongIsRefusedWithItsSize) {
  EXPECT_THAT(refusal(std::string(70'000, 'x')), HasSubstr("70000 bytes"));
  EXPECT_THAT(refusal("\xff"), HasSubstr("valid UTF-8"));
}

TEST_F(PromptSessionTest, QuitEnds) { EXPECT_TRUE(type("/quit").value().is_end); }

}  // namespace prompt_session_test
}  // namespace optserve::cli
