#include "cli/text/audit_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace optserve::cli {
namespace audit_text_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

audit::Listing listing() {
  return {.records = {{.wall_ms = 1'767'225'599'123,
                       .action = "pause",
                       .object = "model opt",
                       .outcome = audit::Outcome::kRefused,
                       .reason = "not allowed",
                       .key = "shop",
                       .tenants = "shop",
                       .peer = "10.0.0.7",
                       .scheduler = "tcp://a:5555",
                       .left_out = 3},
                      {.wall_ms = 0, .action = "start", .object = "scheduler"}},
          .unreadable = 1};
}

TEST(AuditText, TheTableIsForPeople) {
  EXPECT_EQ(audit_table(listing()),
            "TIME (UTC)                WHO               ACTION  OBJECT     OUTCOME\n"
            "2025-12-31T23:59:59.123Z  shop at 10.0.0.7  pause   model opt  refused: not allowed (and 3 attempts "
            "before it)\n"
            "1970-01-01T00:00:00.000Z  -                 start   scheduler  done\n");
}

TEST(AuditText, JsonHasTheFieldsOfTheLog) {
  const auto json = nlohmann::json::parse(audit_json(listing()));
  EXPECT_EQ(json["unreadable"], 1);
  ASSERT_EQ(json["records"].size(), 2u);
  EXPECT_EQ(json["records"][0]["key"], "shop");
  EXPECT_EQ(json["records"][0]["left_out"], 3);
  EXPECT_EQ(json["records"][1]["outcome"], "done");
}

TEST(AuditText, HostileNamesMoveNoTerminalAndMakeNoLine) {
  audit::Listing hostile = listing();
  hostile.records[0].object = "model \x1b[2J\n2026-01-01T00:00:00.000Z  ops  resume  queue  done\r\u202e";
  hostile.records[0].key = "\x07\xff";
  for (const std::string& text : {audit_table(hostile), audit_json(hostile)}) {
    EXPECT_TRUE(std::ranges::all_of(text, [](char c) { return c == '\n' || (c >= ' ' && c != 0x7f); })) << text;
    EXPECT_EQ(std::ranges::count(text, '\n'), text.front() == '{' ? 1 : 3);
  }
  EXPECT_THAT(audit_table(hostile), HasSubstr("\\u001b[2J\\n2026"));
  EXPECT_THAT(audit_table(hostile), Not(HasSubstr("\u202e")));
}

}  // namespace
}  // namespace audit_text_test
}  // namespace optserve::cli
