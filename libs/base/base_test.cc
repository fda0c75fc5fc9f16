#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/address_check.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/error.h"
#include "base/file_lock.h"
#include "base/format_names.h"
#include "base/hex.h"
#include "base/ids.h"
#include "base/input_check.h"
#include "base/log.h"
#include "base/progress_line.h"
#include "base/sha256.h"
#include "base/shutdown.h"
#include "base/time_left.h"
#include "base/trace_context.h"
#include "base/utc_time.h"
#include "base/utf8.h"
#include "support/temporary_folder.h"

namespace optserve {
namespace base_test {

TEST(Hex, DigitsOfEitherCaseHaveTheirValues) {
  const std::string lower = "0123456789abcdef", upper = "0123456789ABCDEF";
  for (int value = 0; value < 16; ++value) {
    EXPECT_EQ(hex_digit(lower[static_cast<size_t>(value)]), value);
    EXPECT_EQ(hex_digit(upper[static_cast<size_t>(value)]), value);
  }
  for (const char other : {'g', 'G', '/', ':', '@', '`', '\0', '\xff'}) EXPECT_EQ(hex_digit(other), -1);
}

TEST(Id128, HexRoundTripsAndRefusesOtherText) {
  const Id128 id = Id128::random();
  EXPECT_EQ(Id128::from_hex(id.hex()), id);
  EXPECT_NE(Id128::random(), id);
  EXPECT_FALSE(Id128::from_hex("12"));
  EXPECT_FALSE(Id128::from_hex(std::string(32, 'G')));
}

// Whatever a peer sends, one call makes one line, and no byte of it controls a terminal.
TEST(Log, HostileTextStaysInsideItsField) {
  std::string hostile = "a\n2026-01-01T00:00:00.000 E scheduler[1] forged\r\x1b[2J\" b=c \\\xff\u009b";
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
    for (const char c : written.substr(0, written.size() - 1)) EXPECT_TRUE(c >= ' ' && c <= '~');
    const std::string quoted =
        R"("a\n2026-01-01T00:00:00.000 E scheduler[1] forged\r\u001b[2J\" b=c \\\ufffd\u009b\u0000\u007f")";
    EXPECT_NE(written.find(format == LogFormat::kJson ? "\"text\":" + quoted + ",\"number\":3}"
                                                      : "text=" + quoted + " number=3"),
              std::string::npos)
        << written;
    EXPECT_EQ(written.find("hidden"), std::string::npos);
  }
}

const std::string kTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(Log, AFieldWithoutAKeyIsLeftOut) {
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    testing::internal::CaptureStderr();
    init_logging("test", "info", format);
    log_info("event", {trace_field(""), {"number", 3}});
    log_info("event", {trace_field(kTrace)});
    init_logging("test", "info", LogFormat::kText);
    const std::string written = testing::internal::GetCapturedStderr();
    const std::string first = written.substr(0, written.find('\n'));
    EXPECT_TRUE(first.ends_with(format == LogFormat::kJson ? R"("event":"event","number":3})" : "event number=3"))
        << first;
    EXPECT_NE(written.find("0af7651916cd43dd8448eb211c80319c"), std::string::npos) << written;
  }
}

TEST(UtcTime, IsWrittenAsRfc3339) {
  EXPECT_EQ(rfc3339_text(0), "1970-01-01T00:00:00Z");
  EXPECT_EQ(rfc3339_text(1'795'618'245), "2026-11-25T14:50:45Z");
}

TEST(UtcTime, IsReadInThatFormAlone) {
  for (const int64_t time : {0LL, 951'782'400LL, 1'795'618'245LL, 253'402'300'799LL}) {
    EXPECT_EQ(parse_rfc3339(rfc3339_text(time)), time);
  }
  for (const char* text :
       {"", "2026-11-30", "2026-11-30T18:28:54", "2026-11-30T18:28:54+", "2026-11-30 18:28:54Z", "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z", "2026-11-00T00:00:00Z", "2026-11-30T24:00:00Z", "2026-11-30T00:60:00Z",
        "2026-11-30T00:00:60Z", "1969-12-31T23:59:59Z", "2026-11-30T-1:00:00Z", "2026-11-30T18:28:54ZZ"}) {
    EXPECT_FALSE(parse_rfc3339(text)) << text;
  }
}

TEST(TraceContext, ReadsWhatTheSpecificationAllows) {
  EXPECT_EQ(read_traceparent(kTrace), kTrace);
  EXPECT_EQ(trace_id_of(kTrace), "0af7651916cd43dd8448eb211c80319c");
  EXPECT_TRUE(is_sampled(kTrace));
  EXPECT_FALSE(is_sampled(""));
  const std::string unsampled = kTrace.substr(0, 53) + "00";
  EXPECT_EQ(read_traceparent(unsampled), unsampled);
  EXPECT_FALSE(is_sampled(unsampled));
  // Of a later version, what both have in common is used, and only the known flag.
  EXPECT_EQ(read_traceparent("cc" + kTrace.substr(2, 51) + "ff-more"), kTrace);
  EXPECT_EQ(read_traceparent("01" + kTrace.substr(2, 51) + "fe"), unsampled);
}

TEST(TraceContext, IgnoresEverythingElse) {
  std::string upper = kTrace;
  upper[4] = 'A';
  const std::string zeros(32, '0');
  for (const std::string& header :
       {std::string(), kTrace.substr(1), kTrace + "-", kTrace + "0", kTrace.substr(0, 54), "ff" + kTrace.substr(2),
        upper, "00-" + zeros + kTrace.substr(35), kTrace.substr(0, 36) + zeros.substr(0, 16) + "-01", " " + kTrace,
        "cc" + kTrace.substr(2) + ".more", std::string(55, '-'), std::string(55, '0')}) {
    EXPECT_FALSE(read_traceparent(header)) << header;
    EXPECT_FALSE(is_traceparent(header)) << header;
  }
  EXPECT_FALSE(is_traceparent("cc" + kTrace.substr(2)));
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
  EXPECT_EQ(left.text(100, 1000, clock.now()), "");  // less than before, so it starts over
  clock.advance(seconds(10));
  EXPECT_EQ(left.text(550, 1000, clock.now()), "about 10 s left");
}

std::string message_of(const Status& status) { return status.ok() ? "" : status.refusal().message; }

TEST(InputCheck, RangesHoldTheirEndsAndNameWhatIsOutside) {
  EXPECT_TRUE(check_range("count", 1, 1, 3).ok());
  EXPECT_TRUE(check_range("count", 3, 1, 3).ok());
  EXPECT_EQ(message_of(check_range("count", 4, 1, 3)), "count is 4, expected 1 to 3");
  EXPECT_EQ(message_of(check_range("count", int64_t{-1}, 0, 100'000'000)), "count is -1, expected 0 to 100000000");
  EXPECT_EQ(message_of(check_range("share", 2.1f, 0.1f, 1)), "share is 2.1, expected 0.1 to 1");
  EXPECT_EQ(message_of(check_range("share", 1e-9, 0.01, 100e6)), "share is 1e-09, expected 0.01 to 100000000");
  EXPECT_EQ(message_of(check_range("share", std::nan(""), 0, 1)), "share is nan, expected 0 to 1");
  EXPECT_EQ(message_of(check_range("share", INFINITY, 0, 1)), "share is inf, expected 0 to 1");
  EXPECT_TRUE(check_above("share", 1.0, 0, 1).ok());
  EXPECT_EQ(message_of(check_above("share", 0.0, 0, 1)), "share is 0, expected more than 0, at most 1");
  EXPECT_FALSE(check_above("share", std::nan(""), 0, 1).ok());
  EXPECT_THROW(throw_if_refused(check_range("count", 4, 1, 3)), Error);
}

TEST(InputCheck, ChoicesAndNamesNeverRepeatTextThatMovesATerminal) {
  EXPECT_TRUE(check_choice("dtype", "bf16", kDtypeNames).ok());
  EXPECT_EQ(message_of(check_choice("dtype", "fp8", kDtypeNames)), "dtype is 'fp8', expected fp32, fp16 or bf16");
  EXPECT_TRUE(check_choice("dtype", "auto", with_words({"auto"}, kDtypeNames)).ok());
  EXPECT_EQ(message_of(check_choice("form", "a\x1b[2J", {"text", "json"})),
            "form is a text of 5 bytes, expected text or json");
  EXPECT_TRUE(check_name("key", "aZ09._-", 1, 7).ok());
  EXPECT_TRUE(check_name("key", "", 0, 7).ok());
  EXPECT_EQ(message_of(check_name("key", "", 1, 7)), "key is '', expected 1 to 7 characters of [A-Za-z0-9._-]");
  EXPECT_FALSE(check_name("key", "12345678", 1, 7).ok());
  EXPECT_FALSE(check_name("key", "a b", 1, 7).ok());
  EXPECT_EQ(found_text(std::string(65, 'x')), "a text of 65 bytes");
}

TEST(Sha256, IsTheStandardOneInOnePieceOrSeveral) {
  const std::string digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";  // FIPS 180-4, "abc"
  EXPECT_EQ(to_hex(sha256("abc")), digest);
  Sha256 hash;
  for (const char c : {'a', 'b', 'c'}) hash.update(std::as_bytes(std::span(&c, 1)));
  EXPECT_EQ(to_hex(hash.finish()), digest);
  EXPECT_TRUE(is_sha256_hex(digest));
  EXPECT_FALSE(is_sha256_hex(digest.substr(1)));
  EXPECT_FALSE(is_sha256_hex("B" + digest.substr(1)));
}

TEST(FileLock, OneHolderUntilItEnds) {
  const test_support::TemporaryFolder temporary;
  const std::string path = temporary / "lock";
  const auto read = [&] {
    std::string text;
    std::getline(std::ifstream(path), text);
    return text;
  };
  std::optional<FileLock> held = FileLock::try_exclusive(path);
  ASSERT_TRUE(held);
  held->write_note("a longer note\n");
  held->write_note("note\n");
  EXPECT_EQ(read(), "note");
  EXPECT_FALSE(FileLock::try_exclusive(path));
  FileLock moved = std::move(*held);
  held.reset();
  EXPECT_FALSE(FileLock::try_exclusive(path));  // moving does not release it
  { const FileLock gone = std::move(moved); }
  EXPECT_TRUE(FileLock::try_exclusive(path));
  EXPECT_THROW((void)FileLock::try_exclusive(path + ".no-folder/lock"), Error);
}

TEST(FileLock, ARemovedFolderHasNoLocksAndLinksAreNotFollowed) {
  const test_support::TemporaryFolder temporary;
  const std::string folder = temporary / "locks";
  std::filesystem::create_directory(folder);
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY);
  std::filesystem::create_symlink("elsewhere", folder + "/link");
  EXPECT_THROW((void)FileLock::try_exclusive(fd, folder, "link"), Error);
  {
    const auto first = FileLock::wait(fd, folder, "members", FileLock::Kind::kShared);
    auto second = FileLock::wait(fd, folder, "members", FileLock::Kind::kShared);
    ASSERT_TRUE(first && second);
    EXPECT_FALSE(FileLock::try_exclusive(fd, folder, "members"));
    EXPECT_FALSE(second->try_upgrade());
  }
  auto alone = FileLock::wait(fd, folder, "members", FileLock::Kind::kShared);
  EXPECT_TRUE(alone->try_upgrade());
  std::filesystem::remove_all(folder);
  EXPECT_FALSE(FileLock::wait(fd, folder, "members", FileLock::Kind::kExclusive));
  EXPECT_FALSE(FileLock::try_exclusive(fd, folder, "members"));
  close(fd);
}

TEST(ProgressLine, SizesHaveThreeDigitsAndDecimalUnits) {
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(999), "999 B");
  EXPECT_EQ(bytes_text(1'000), "1.0 kB");
  EXPECT_EQ(bytes_text(99'949), "99.9 kB");
  EXPECT_EQ(bytes_text(310'400'000), "310 MB");
  EXPECT_EQ(bytes_text(999'600'000), "1.0 GB");
  EXPECT_EQ(bytes_text(13'300'000'000'000), "13.3 TB");
}

TEST(ProgressLine, TextLeavesOutWhatIsNotKnown) {
  EXPECT_EQ(progress_text({.done = 42, .total = 100}), "42% of 100 B");
  EXPECT_EQ(progress_text({.done = 999, .total = 1'000, .item = "fc1"}), "99% of 1.0 kB, fc1");
  EXPECT_EQ(progress_text({.done = 1, .total = 2, .bytes_per_second = 3e8, .time_left = "about 1 s left"}),
            "50% of 2 B, 300 MB/s, about 1 s left");
  EXPECT_EQ(progress_text({}), "100% of 0 B");
}

TEST(ProgressLine, ATerminalHasOneLineAndALogOneEveryFiveSeconds) {
  FakeClock clock;
  ProgressLine line(true), log(false);
  EXPECT_EQ(line.show(100, 1'000, "a", clock.now()), "");
  EXPECT_EQ(log.show(100, 1'000, "a", clock.now()), "");
  EXPECT_EQ(line.erase(), "");
  clock.advance(milliseconds(500));
  EXPECT_EQ(line.show(150, 1'000, "b", clock.now()), "\r\x1b[K15% of 1.0 kB, 100 B/s, b");
  EXPECT_EQ(line.show(151, 1'000, "b", clock.now()), "");
  EXPECT_EQ(log.show(150, 1'000, "b", clock.now()), "");
  EXPECT_EQ(line.erase(), "\r\x1b[K");
  EXPECT_EQ(line.erase(), "");
  clock.advance(milliseconds(4'500));
  EXPECT_EQ(log.show(600, 1'000, "c", clock.now()), "60% of 1.0 kB, 100 B/s, about 4 s left, c\n");
  EXPECT_EQ(line.finish(1'000, 1'000, clock.now()), "\r\x1b[K100% of 1.0 kB, 180 B/s\n");
  EXPECT_EQ(line.erase(), "");
  EXPECT_EQ(log.finish(1'000, 1'000, clock.now()), "");
}

// The tests run in processes of their own, since signals are counted per process.
bool is_signalled() {
  pollfd wait{shutdown_fd(), POLLIN, 0};
  const bool is_readable = poll(&wait, 1, 0) == 1;
  EXPECT_EQ(is_readable, shutdown_requested());
  return is_readable;
}

TEST(Shutdown, InterruptsAreForgottenAndTerminationsAreNot) {
  EXPECT_EXIT(
      {
        install_shutdown_signals();
        raise(SIGINT);
        const bool is_seen = is_signalled();
        forget_interrupts();
        const bool is_forgotten = !is_signalled();
        raise(SIGTERM);
        raise(SIGINT);
        const bool is_forced = shutdown_forced();
        forget_interrupts();
        _exit(is_seen && is_forgotten && is_forced && is_signalled() && !shutdown_forced() ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(Shutdown, ASecondSignalIsAnotherWishUnlessTheSignalsCountAsOne) {
  EXPECT_EXIT(
      {
        install_shutdown_signals();
        raise(SIGTERM);
        const bool is_early = shutdown_forced();
        raise(SIGTERM);
        const bool is_forced = shutdown_forced();
        count_signals_as_one();
        _exit(!is_early && is_forced && shutdown_requested() && !shutdown_forced() ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST(Shutdown, TheSecondSignalEndsAProgramThatAskedForIt) {
  EXPECT_EXIT(
      {
        install_shutdown_signals();
        end_at_second_signal(130);
        raise(SIGINT);
        if (!shutdown_requested()) _exit(1);
        raise(SIGINT);
        _exit(2);
      },
      ::testing::ExitedWithCode(130), "");
}

TEST(Address, HasAHostAndAPort) {
  for (const char* good :
       {"tcp://a:1", "tcp://127.0.0.1:65535", "tcp://[::1]:5555", "ipc:///tmp/x", "tcp://a:5|tcp://b:6"}) {
    EXPECT_TRUE(check_address("x", good, AddressUse::kConnect).ok()) << good;
    EXPECT_TRUE(check_address("x", good, AddressUse::kListen).ok()) << good;
  }
  for (const char* chosen : {"tcp://*:0", "tcp://127.0.0.1:*"}) {
    EXPECT_FALSE(check_address("x", chosen, AddressUse::kConnect).ok()) << chosen;
    EXPECT_TRUE(check_address("x", chosen, AddressUse::kListen).ok()) << chosen;
  }
  for (const char* bad : {"", "a", "a:1", "tcp://", "tcp://a", "tcp://:1", "tcp://a:", "tcp://a:-1", "tcp://a:65536",
                          "tcp://a:1x", "http://a:1", "tcp://a:1|", "tcp://a:1|b:2", "ipc://"}) {
    EXPECT_FALSE(check_address("x", bad, AddressUse::kListen).ok()) << bad;
  }
  EXPECT_EQ(check_address("x", "a", AddressUse::kConnect).refusal().message,
            "x is 'a', expected tcp://HOST:PORT, such as tcp://127.0.0.1:5555");
}

}  // namespace base_test
}  // namespace optserve
