// Logs that nobody reads, and events that come too often.
#include "base/log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>
#include <string>

#include "base/log_limit.h"
#include "base/log_stream.h"

namespace optserve {
namespace log_test {

constexpr unsigned kHangSeconds = 20;

std::string drain(int fd) {
  std::string text(1 << 20, '\0');
  fcntl(fd, F_SETFL, O_NONBLOCK);
  size_t filled = 0;
  for (ssize_t got = 0; (got = read(fd, text.data() + filled, text.size() - filled)) > 0;) {
    filled += static_cast<size_t>(got);
  }
  text.resize(filled);
  return text;
}

// Runs a child that logs far more than fits into `write_end`, which nobody reads. False if it does not finish.
bool logs_to_the_full(int write_end) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(kHangSeconds);
    dup2(write_end, STDERR_FILENO);
    init_logging("test", "debug", LogFormat::kText);
    for (int i = 0; i < 10'000; ++i) log_debug("line", {{"text", std::string(100, 'x')}});
    _exit(log_lines_lost() > 1'000 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST(LogStream, AFullPipeOrSocketHoldsNobodyUp) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  EXPECT_TRUE(logs_to_the_full(ends[1]));
  const std::string text = drain(ends[0]);
  EXPECT_GT(text.size(), 2'000u);  // a pipe holds one page at least
  close(ends[0]);
  close(ends[1]);
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  EXPECT_TRUE(logs_to_the_full(ends[1]));
  close(ends[0]);
  close(ends[1]);
}

TEST(LogStream, LinesStayWholeAndAreCounted) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  LogStream stream(ends[1]);
  const std::string line = std::string(999, 'a') + "\n";
  constexpr int kLines = 200;
  int dropped = 0;
  for (int i = 0; i < kLines; ++i) dropped += stream.write(line) ? 0 : 1;
  std::string text = drain(ends[0]);
  EXPECT_TRUE(stream.write("last\n"));
  text += drain(ends[0]);
  EXPECT_TRUE(text.ends_with("a\nlast\n"));
  EXPECT_EQ(std::ranges::count(text, '\n') + dropped, kLines + 1);
  EXPECT_EQ((text.size() - 5) % line.size(), 0u);
  EXPECT_GT(dropped, 0);
  // The descriptor that others share is still blocking.
  EXPECT_EQ(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0);
  close(ends[0]);
  close(ends[1]);
}

// The number of lost lines according to the notes in the text, and the number of lines that are there.
struct Told {
  uint64_t lost = 0, lines = 0;
};

Told read_log(const std::string& text, LogFormat format) {
  const std::string note =
      format == LogFormat::kJson ? R"("event":"log_lines_lost","count":)" : "log_lines_lost count=";
  Told told;
  std::istringstream log(text);
  for (std::string line; std::getline(log, line);) {
    const size_t at = line.find(note);
    if (at == std::string::npos) {
      ++told.lines;
    } else {
      told.lost += std::stoull(line.substr(at + note.size()));
    }
  }
  return told;
}

TEST(LostLines, AreCountedAndTold) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const int before = dup(STDERR_FILENO);
  dup2(ends[1], STDERR_FILENO);
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    init_logging("test", "debug", format);
    constexpr uint64_t kLines = 2'000;
    for (uint64_t i = 0; i < kLines; ++i) log_debug("line", {{"text", std::string(100, 'x')}});
    const uint64_t lost = log_lines_lost();
    EXPECT_GT(lost, 0u);
    // A note is shorter than a line, so there may be room for a note but not for a line.
    const std::string full = drain(ends[0]);
    log_info("after");
    const std::string text = drain(ends[0]);
    EXPECT_LT(text.find("log_lines_lost"), text.find("after"));
    const Told told = read_log(full + text, format);
    EXPECT_EQ(told.lost, lost);
    EXPECT_EQ(told.lines + lost, kLines + 1);
    log_info("again");
    EXPECT_EQ(drain(ends[0]).find("log_lines_lost"), std::string::npos);
  }
  dup2(before, STDERR_FILENO);
  close(before);
  init_logging("test", "info", LogFormat::kText);
  close(ends[0]);
  close(ends[1]);
}

TEST(LogLimit, ThinsOutWhatComesTooOften) {
  LogLimit limit;
  const Instant start{};
  uint64_t written = 0, left_out = 0;
  for (int i = 0; i < 100'000; ++i) {  // ten seconds of 10,000 lines
    const auto admitted = limit.admit("garbage", start + microseconds(100) * i);
    written += admitted.has_value();
    left_out += admitted.value_or(0);
  }
  EXPECT_NEAR(static_cast<double>(written), LogLimit::kBurst + 10 * LogLimit::kPerSecond, 5);
  left_out += limit.admit("garbage", start + seconds(20)).value();
  EXPECT_EQ(written + left_out, 100'000u);
  EXPECT_EQ(limit.admit("another", start + seconds(10)), 0u);
}

TEST(LogLimit, LeavesUsualLogsAlone) {
  LogLimit limit;
  for (int i = 0; i < 10'000; ++i) ASSERT_EQ(limit.admit("job", Instant{} + milliseconds(10) * i), 0u);
}

}  // namespace log_test
}  // namespace optserve
