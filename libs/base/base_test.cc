#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/time_left.h"
#include "base/utf8.h"

namespace optserve {
namespace {

TEST(Id128, HexRoundTripsAndRefusesOtherText) {
  const Id128 id = Id128::random();
  EXPECT_EQ(Id128::from_hex(id.hex()), id);
  EXPECT_NE(Id128::random(), id);
  EXPECT_FALSE(Id128::from_hex("12"));
  EXPECT_FALSE(Id128::from_hex(std::string(32, 'G')));
}

// Whatever a peer sends, one call is one line, and no byte of it moves a terminal.
TEST(Log, HostileTextStaysInsideItsField) {
  std::string hostile = "a\n2026-01-01T00:00:00.000 E scheduler[1] forged\r\x1b[2J\" b=c \\";
  hostile += '\0';
  hostile += '\x7f';
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    testing::internal::CaptureStderr();
    init_logging("test", "info", format);
    log_info("event", {{"text", hostile}, {"number", 3}});
    log_debug("hidden");
    init_logging("test", "info", LogFormat::kText);
    const std::string written = testing::internal::GetCapturedStderr();
    EXPECT_EQ(std::count(written.begin(), written.end(), '\n'), 1) << written;
    EXPECT_TRUE(written.ends_with('\n') && !written.ends_with("\n\n"));
    for (const char c : written.substr(0, written.size() - 1)) {
      EXPECT_GE(static_cast<unsigned char>(c), 0x20u);
      EXPECT_NE(c, 0x7f);
    }
    const std::string quoted =
        R"("a\u000a2026-01-01T00:00:00.000 E scheduler[1] forged\u000d\u001b[2J\" b=c \\\u0000\u007f")";
    EXPECT_NE(written.find(format == LogFormat::kJson ? "\"text\":" + quoted + ",\"number\":3}"
                                                      : "text=" + quoted + " number=3"),
              std::string::npos)
        << written;
    EXPECT_EQ(written.find("hidden"), std::string::npos);
  }
}

TEST(Result, WhatIsTakenOutOfATemporaryLivesOn) {
  struct Found {
    std::vector<std::string> items;
  };
  const auto find = [] { return Result<Found>(Found{{"longer than any small string can be", "x"}}); };
  std::string all;
  for (const std::string& item : find().value().items) all += item;
  EXPECT_EQ(all, "longer than any small string can bex");
  static_assert(std::is_same_v<decltype(find().value()), Found>);
}

TEST(Result, AbortsWhenTheWrongSideIsRead) {
  const Result<int> refused = refuse(ErrorCode::kBusy, "full");
  EXPECT_FALSE(refused.ok());
  EXPECT_EQ(refused.refusal().message, "full");
  EXPECT_DEATH((void)refused.value(), "full");
}

TEST(Utf8, AcceptsWholeCharactersOnly) {
  EXPECT_TRUE(is_valid_utf8("a\u00e9\u20ac\U0001f600"));
  EXPECT_FALSE(is_valid_utf8("\xc0\x80"));          // overlong
  EXPECT_FALSE(is_valid_utf8("\xed\xa0\x80"));      // surrogate
  EXPECT_FALSE(is_valid_utf8("\xf4\x90\x80\x80"));  // above U+10FFFF
  EXPECT_EQ(valid_utf8_prefix("ab\xe2\x82"), 2u);
  EXPECT_TRUE(is_incomplete_utf8("\xe2\x82"));
  EXPECT_FALSE(is_incomplete_utf8("\xe2\x28"));
  EXPECT_FALSE(is_incomplete_utf8("\xe2\x82\xac"));
}

TEST(TimeLeft, CountsFromTheFirstCallAndRoundsUp) {
  FakeClock clock;
  TimeLeft left;
  EXPECT_EQ(left.text(500, 1000, clock.now()), "");  // done before
  clock.advance(seconds(1));
  EXPECT_EQ(left.text(550, 1000, clock.now()), "");  // too early to say
  clock.advance(seconds(9));
  EXPECT_EQ(left.text(600, 1000, clock.now()), "about 40 s left");
  EXPECT_EQ(left.text(510, 1000, clock.now()), "about 9 min left");
  EXPECT_EQ(left.text(501, 1000, clock.now()), "about 84 min left");
  EXPECT_EQ(left.text(501, 2000, clock.now()), "about 5 h left");
  EXPECT_EQ(left.text(500, 1000, clock.now()), "");
  EXPECT_EQ(left.text(1000, 1000, clock.now()), "");
  EXPECT_EQ(left.text(100, 1000, clock.now()), "");  // less than before: it counts anew
  clock.advance(seconds(10));
  EXPECT_EQ(left.text(550, 1000, clock.now()), "about 10 s left");
}

TEST(Config, FlagBeatsEnvironmentBeatsFile) {
  const std::string path = ::testing::TempDir() + "/config_test.yaml";
  std::ofstream(path) << "alpha: 1\nbeta: 1\ngamma: 1\nlist: [a, b]\n";
  setenv("OPTSERVE_BETA", "2", 1);
  setenv("OPTSERVE_GAMMA", "2", 1);
  int alpha = 0, beta = 0, gamma = 0, delta = 7;
  std::vector<std::string> list;
  ConfigParser parser("program", "text");
  parser.add("alpha", alpha, "");
  parser.add("beta", beta, "");
  parser.add("gamma", gamma, "");
  parser.add("delta", delta, "");
  parser.add("list", list, "");
  const char* argv[] = {"program", "--config", path.c_str(), "--gamma", "3"};
  ASSERT_EQ(parser.parse(5, argv), -1);
  unsetenv("OPTSERVE_BETA");
  unsetenv("OPTSERVE_GAMMA");
  EXPECT_EQ(alpha, 1);
  EXPECT_EQ(beta, 2);
  EXPECT_EQ(gamma, 3);
  EXPECT_EQ(delta, 7);
  EXPECT_EQ(list, (std::vector<std::string>{"a", "b"}));
}

TEST(Config, WhatWasGivenSetsTheSameInAnotherProgram) {
  const std::string path = ::testing::TempDir() + "/config_given.yaml";
  std::ofstream(path) << "run:\n  quick: true\n  alpha: 1\n";
  setenv("OPTSERVE_BETA", "2", 1);
  bool selected = false, quick = false, loud = true;
  int alpha = 0, beta = 0, gamma = 0;
  std::vector<std::string> list;
  std::string what;
  ConfigParser parser("program", "text");
  ConfigParser& command = parser.add_command("run", "", selected);
  command.add_positional("what", what, "", true);
  command.add("quick", quick, "");
  command.add("loud", loud, "");
  command.add("alpha", alpha, "");
  command.add("beta", beta, "");
  command.add("gamma", gamma, "");
  command.add("list", list, "");
  const char* argv[] = {"program", "--config", path.c_str(), "run", "x", "--no-loud", "--list", "a b", "--list", "c"};
  ASSERT_EQ(parser.parse(10, argv), -1);
  unsetenv("OPTSERVE_BETA");
  std::string text;
  for (const ConfigParser::Given& given : command.given()) {
    text += (given.is_positional ? "positional " : "") + given.name + (given.is_from_environment ? " (variable)" : "");
    for (const std::string& value : given.values) text += " [" + value + "]";
    text += "\n";
  }
  EXPECT_EQ(text, "positional what [x]\nquick [true]\nloud [false]\nalpha [1]\nbeta (variable) [2]\nlist [a b] [c]\n");
}

TEST(Config, RefusesUnknownKeysAndBadNumbers) {
  const std::string path = ::testing::TempDir() + "/config_bad.yaml";
  std::ofstream(path) << "alhpa: 1\n";
  int alpha = 0;
  ConfigParser parser("program", "text");
  parser.add("alpha", alpha, "");
  const char* unknown[] = {"program", "--config", path.c_str()};
  EXPECT_GT(parser.parse(3, unknown), 0);
  const char* bad[] = {"program", "--alpha", "x"};
  EXPECT_GT(parser.parse(3, bad), 0);
}

}  // namespace
}  // namespace optserve
