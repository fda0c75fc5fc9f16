#include "audit/audit_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace optserve::audit {
namespace audit_record_test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

Record whole() {
  return {.wall_ms = 1'796'063'334'123,
          .action = "pause",
          .object = "model opt",
          .outcome = Outcome::kRefused,
          .reason = "model opt is not known",
          .key = "ops",
          .tenants = "*",
          .peer = "10.0.0.7",
          .scheduler = "tcp://a:5555",
          .left_out = 3};
}

Result<Record> read_back(const Record& record) {
  const std::string line = line_of(record);
  return parse_line(std::string_view(line).substr(0, line.size() - 1));
}

TEST(AuditRecord, ALineSaysAllInTheOrderInWhichPeopleRead) {
  EXPECT_EQ(line_of(whole()),
            R"({"time":"2026-11-30T18:28:54.123Z","action":"pause","object":"model opt","outcome":"refused",)"
            R"("reason":"model opt is not known","key":"ops","tenants":"*","peer":"10.0.0.7",)"
            R"("scheduler":"tcp://a:5555","left_out":3})"
            "\n");
}

TEST(AuditRecord, WhatIsWrittenIsReadBack) {
  EXPECT_EQ(read_back(whole()).value(), whole());
  for (const Outcome outcome : {Outcome::kBegun, Outcome::kDone, Outcome::kRefused}) {
    const Record record{.wall_ms = 0, .action = "resume", .outcome = outcome};
    EXPECT_EQ(read_back(record).value(), record);
  }
}

TEST(AuditRecord, TimesAreUtcAndExactToTheMillisecond) {
  EXPECT_EQ(time_text(0), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(time_text(1'767'225'599'123), "2025-12-31T23:59:59.123Z");
  EXPECT_EQ(time_text(-5), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(time_text(INT64_MAX), "9999-12-31T23:59:59.999Z");
  const auto seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 1'000; ++i) {
    const Record record{.wall_ms = static_cast<int64_t>(random() % 253'402'300'800'000), .action = "pause"};
    EXPECT_EQ(read_back(record).value().wall_ms, record.wall_ms);
  }
}

// Names come from peers. None may end a line, pretend to be a record, or move a terminal.
TEST(AuditRecord, HostileTextStaysWithinItsField) {
  const std::string forged = "opt\"}\n" + line_of(whole());
  for (const std::string& text :
       {forged, std::string("\x1b[2J\x1b]0;title\x07"), std::string("a\0b", 3), std::string("\xff\xfe half \xe2\x82"),
        std::string("\u202e right to left"), std::string("\u2028 line \u0085 ends \r\n")}) {
    Record record = whole();
    record.object = record.reason = record.key = record.tenants = record.peer = record.action = text;
    const std::string line = line_of(record);
    EXPECT_EQ(std::ranges::count(line, '\n'), 1);
    EXPECT_TRUE(std::ranges::all_of(line.substr(0, line.size() - 1), [](char c) { return c >= ' ' && c < 0x7f; }))
        << line;
    ASSERT_TRUE(read_back(record).ok());
    EXPECT_EQ(read_back(record).value().outcome, Outcome::kRefused);
    const std::string for_people = shown(text);
    EXPECT_TRUE(std::ranges::all_of(for_people, [](char c) { return c >= ' ' && c < 0x7f; })) << for_people;
  }
  EXPECT_EQ(read_back([&] {
              Record record = whole();
              record.object = forged;
              return record;
            }())
                .value()
                .object,
            forged);
  EXPECT_EQ(shown("plain 'text' \"quoted\""), "plain 'text' \"quoted\"");
  EXPECT_EQ(shown("\x1b[2J"), "\\u001b[2J");
  EXPECT_EQ(shown("\\u001b"), "\\\\u001b");  // is not taken for the character
}

TEST(AuditRecord, LongTextIsCutBetweenCharacters) {
  Record record = whole();
  record.object = std::string(kTextBytesMax - 1, 'a') + "\u20ac tail";
  EXPECT_EQ(read_back(record).value().object, std::string(kTextBytesMax - 1, 'a'));
  record.object = std::string(10'000'000, '\x01');
  record.action = record.reason = record.key = record.tenants = record.peer = record.scheduler = record.object;
  EXPECT_LT(line_of(record).size(), kLineBytesMax);
  EXPECT_TRUE(read_back(record).ok());
}

TEST(AuditRecord, WhatIsNoRecordIsRefusedWithTheReason) {
  const auto why = [](std::string_view line) {
    const auto read = parse_line(line);
    return read.ok() ? std::string("accepted") : read.refusal().message;
  };
  EXPECT_THAT(why(""), HasSubstr("object"));
  EXPECT_THAT(why("[1]"), HasSubstr("object"));
  EXPECT_THAT(why(R"({"time":"2026-11-30T18:28:54.123Z","action":"pa)"), HasSubstr("object"));
  EXPECT_THAT(why(R"({"action":"pause","outcome":"done"})"), HasSubstr("time"));
  EXPECT_THAT(why(R"({"time":"2026-11-30T18:28:54.123Z","outcome":"done"})"), HasSubstr("action"));
  EXPECT_THAT(why(R"({"time":"2026-11-30T18:28:54.123Z","action":"pause","outcome":"maybe"})"), HasSubstr("outcome"));
  for (const char* time : {"2026-02-29T00:00:00.000Z", "2026-11-30T24:00:00.000Z", "2026-11-30T00:60:00.000Z",
                           "2026-11-30T00:00:60.000Z", "2026-11-30 00:00:00.000Z", "2026-11-30T00:00:00.000",
                           "1969-11-30T00:00:00.000Z", "+026-11-30T00:00:00.000Z", "2026-00-30T00:00:00.000Z"}) {
    EXPECT_THAT(why(std::string(R"({"time":")") + time + R"(","action":"pause","outcome":"done"})"), HasSubstr("time"))
        << time;
  }
  EXPECT_THAT(why(std::string(kLineBytesMax + 1, ' ')), HasSubstr("too long"));
  EXPECT_THAT(why(std::string(kLineBytesMax, '[')), HasSubstr("object"));
  // Of a later version, or of another type: ignored.
  EXPECT_EQ(
      why(R"({"time":"2026-11-30T18:28:54.123Z","action":"pause","outcome":"done","new":1,"key":7,"left_out":-1})"),
      "accepted");
}

}  // namespace
}  // namespace audit_record_test
}  // namespace optserve::audit
