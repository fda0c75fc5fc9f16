#include "cli/prompt/token_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace optserve::cli {
namespace token_view_test {

using ::testing::HasSubstr;

float log_of(double probability) { return static_cast<float>(std::log(probability)); }

TEST(TokenView, ShowsALineForEachTokenWithoutColours) {
  TokenView view;
  view.add("", 0);
  view.add(" a", 1);
  view.add("\n", 2);
  view.add("", 3);  // the end of the text, a token without one
  EXPECT_EQ(view.show(" a\n", {log_of(1), log_of(0.25), log_of(0.5)}, false), "100%  \" a\"\n 25%  \"\\n\"\n");
}

TEST(TokenView, ColoursDependOnTheProbability) {
  TokenView view;
  view.add("sure", 1);
  view.add("odd", 2);
  const std::string shown = view.show("sureodd", {log_of(0.9), log_of(0.01)}, true);
  EXPECT_THAT(shown, HasSubstr("\x1b[32msure\x1b[0m\x1b[31modd\x1b[0m\n"));
}

TEST(TokenView, AnEventWithSeveralTokensHasTheGeometricMeanOfTheirProbabilities) {
  TokenView view;
  view.add("ab", 2);
  EXPECT_EQ(view.show("ab", {log_of(0.5), log_of(0.125)}, false), " 25%  \"ab\"\n");
}

TEST(TokenView, BeginsAnewWithTheText) {
  TokenView view;
  view.add("lost", 5);
  view.add("\n", 0);
  view.add("a", 1);
  EXPECT_EQ(view.show("a", {log_of(0.5)}, false), " 50%  \"a\"\n");
}

TEST(TokenView, SaysSoWhenThePiecesAreNotTheText) {
  TokenView view;
  view.add("a", 1);
  EXPECT_THAT(view.show("ab", {log_of(0.5), log_of(0.5)}, false), HasSubstr("not known"));
}

}  // namespace token_view_test
}  // namespace optserve::cli
