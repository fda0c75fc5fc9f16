#include "audit/audit_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "audit/audit_file.h"

namespace optserve::audit {
namespace audit_log_test {
namespace {

using ::testing::HasSubstr;

class AuditLog : public ::testing::Test {
 protected:
  AuditLog() {
    std::string name = (std::filesystem::temp_directory_path() / "optserve-audit-XXXXXX").string();
    check(::mkdtemp(name.data()) != nullptr, "mkdtemp");
    folder_ = name;
    path_ = (folder_ / "journal.db.audit").string();
  }
  ~AuditLog() override { std::filesystem::remove_all(folder_); }

  static Record record(int64_t number) {
    return {.wall_ms = number, .action = "pause", .object = std::to_string(number)};
  }
  LogOptions options(const std::string& path) {
    LogOptions options{.path = path};
    options.retry_pause = milliseconds(5);
    options.on_written = [this](size_t records) { written_ += records; };
    options.on_failed = [this] { ++failed_; };
    options.on_lost = [this](size_t records) { lost_ += records; };
    return options;
  }
  static bool wait_for(const std::function<bool()>& condition) {
    for (int i = 0; i < 60'000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(milliseconds(1));
    }
    return false;
  }
  static std::string content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  static void put(const std::string& path, const std::string& text, std::ios::openmode mode = std::ios::trunc) {
    std::ofstream(path, std::ios::binary | mode) << text;
  }
  std::vector<std::string> objects(size_t limit = 1'000) {
    std::vector<std::string> found;
    for (const Record& one : read_logs({path_}, limit).records) found.push_back(one.object);
    return found;
  }

  std::filesystem::path folder_;
  std::string path_;
  std::atomic<size_t> written_{0}, failed_{0}, lost_{0};
};

TEST_F(AuditLog, ListsTheNewestFirstAlsoAfterARestart) {
  {
    Log log(options(path_));
    for (int i = 1; i <= 3; ++i) log.write(record(i));
  }
  {
    Log log(options(path_));
    log.write(record(4));
    ASSERT_TRUE(wait_for([&] { return written_ == 4; }));
    EXPECT_THAT(objects(), ::testing::ElementsAre("4", "3", "2", "1"));  // while it is open
  }
  EXPECT_THAT(objects(2), ::testing::ElementsAre("4", "3"));
  struct stat about {};
  ASSERT_EQ(stat(path_.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  EXPECT_EQ(lost_, 0u);
}

// As a loss of power leaves it.
TEST_F(AuditLog, ALineThatWasCutDoesNotSwallowTheNextOne) {
  put(path_, line_of(record(1)) + line_of(record(2)).substr(0, 20));
  EXPECT_THAT(objects(), ::testing::ElementsAre("1"));
  { Log(options(path_)).write(record(3)); }
  EXPECT_THAT(objects(), ::testing::ElementsAre("3", "1"));
  EXPECT_EQ(read_logs({path_}, 10).unreadable, 1u);
}

TEST_F(AuditLog, IsBoundedAndTheOldestGoFirst) {
  const size_t line = line_of(record(1'000)).size();
  LogOptions small = options(path_);
  small.file_bytes_max = 10 * line;
  small.files_max = 3;
  for (int i = 1'000; i < 1'100; ++i) Log(small).write(record(i));
  size_t bytes = 0;
  for (size_t age = 0; age < 3; ++age) bytes += std::filesystem::file_size(file_name(path_, age));
  EXPECT_LE(bytes, 3 * small.file_bytes_max);
  EXPECT_FALSE(std::filesystem::exists(file_name(path_, 3)));
  const auto left = objects();
  ASSERT_EQ(left.size(), 30u);  // in order, without a gap, the last among them
  for (size_t i = 0; i < left.size(); ++i) EXPECT_EQ(left[i], std::to_string(1'099 - i));
}

TEST_F(AuditLog, WhatCannotBeWrittenWaitsAndIsCounted) {
  const std::string missing = (folder_ / "missing" / "audit").string();
  Log log(options(missing));
  log.write(record(1));
  log.write(record(2));
  ASSERT_TRUE(wait_for([&] { return failed_ >= 3; }));
  EXPECT_EQ(written_, 0u);
  std::filesystem::create_directory(folder_ / "missing");
  ASSERT_TRUE(wait_for([&] { return written_ == 2; }));
  EXPECT_EQ(lost_, 0u);
  path_ = missing;
  EXPECT_THAT(objects(), ::testing::ElementsAre("2", "1"));
}

TEST_F(AuditLog, BeyondItsBoundWhatWaitsIsLostAndCounted) {
  {
    LogOptions small = options((folder_ / "missing" / "audit").string());
    small.waiting_max = 3;
    small.retry_pause = std::chrono::hours(1);  // which the end does not wait for
    Log log(small);
    for (int i = 0; i < 10; ++i) log.write(record(i));
    EXPECT_EQ(lost_, 7u);
  }
  EXPECT_EQ(lost_, 10u);
  EXPECT_EQ(written_, 0u);
}

TEST_F(AuditLog, HasOneWriter) {
  AuditFile first(path_, kFileBytesMax, kFilesMax);
  first.append(line_of(record(1)));
  AuditFile second(path_, kFileBytesMax, kFilesMax);
  try {
    second.append(line_of(record(2)));
    FAIL() << "two writers";
  } catch (const Error& failure) {
    EXPECT_THAT(failure.what(), HasSubstr("another process writes this audit log"));
  }
  EXPECT_THAT(objects(), ::testing::ElementsAre("1"));
}

TEST_F(AuditLog, AFileThatIsTakenAwayIsMadeAgain) {
  AuditFile file(path_, kFileBytesMax, kFilesMax);
  file.append(line_of(record(1)));
  std::filesystem::rename(path_, path_ + ".kept");
  file.append(line_of(record(2)));
  EXPECT_THAT(objects(), ::testing::ElementsAre("2"));
  std::filesystem::remove(path_);
  std::filesystem::create_symlink(path_ + ".kept", path_);
  EXPECT_THROW(file.append(line_of(record(3))), Error);  // never through a link
  EXPECT_EQ(content(path_ + ".kept"), line_of(record(1)));
}

// A disk that takes a part of a line. The limit is that of the process, so that no disk has to be full.
TEST_F(AuditLog, AWriteThatStopsHalfwayLeavesNothing) {
  AuditFile file(path_, kFileBytesMax, kFilesMax);
  file.append(line_of(record(1)));
  const std::string before = content(path_);
  const auto on_signal = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit limit {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
  struct rlimit tight = limit;
  tight.rlim_cur = before.size() + 10;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tight), 0);
  EXPECT_THROW(file.append(line_of(record(2))), Error);
  EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::signal(SIGXFSZ, on_signal);
  EXPECT_EQ(content(path_), before);
  file.append(line_of(record(2)));
  EXPECT_EQ(content(path_), before + line_of(record(2)));
}

TEST_F(AuditLog, LinesThatAreNoRecordsAreCountedAndPassedOver) {
  put(path_, line_of(record(1)) + "\n\nnonsense\n{\"action\":1}\n" + line_of(record(2)) + "no end yet");
  const Listing listing = read_logs({path_}, 10);
  EXPECT_EQ(listing.unreadable, 2u);
  EXPECT_THAT(objects(), ::testing::ElementsAre("2", "1"));
  EXPECT_THROW(read_logs({path_ + ".other"}, 10), Error);
  EXPECT_THROW(read_logs({folder_.string()}, 10), Error);
}

// Between the looks at two names of a file that takes its turn meanwhile.
TEST_F(AuditLog, AFileThatIsMetUnderTwoNamesIsReadOnce) {
  put(path_, line_of(record(2)));
  std::filesystem::create_hard_link(path_, file_name(path_, 1));
  put(file_name(path_, 2), line_of(record(1)));
  EXPECT_THAT(objects(), ::testing::ElementsAre("2", "1"));
}

TEST_F(AuditLog, OfAFileOfAnySizeTheEndIsRead) {
  put(path_, line_of(record(1)) + std::string(40 << 20, ' ') + "\n" + line_of(record(2)) + line_of(record(3)));
  EXPECT_THAT(objects(), ::testing::ElementsAre("3", "2"));
}

TEST_F(AuditLog, LogsOfSeveralSchedulersAreMergedByTime) {
  const std::string other = path_ + "-b";
  put(path_, line_of(record(1)) + line_of(record(4)) + line_of(record(5)));
  put(other, line_of(record(2)) + line_of(record(3)) + line_of(record(6)));
  std::vector<int64_t> times;
  for (const Record& one : read_logs({path_, other}, 5).records) times.push_back(one.wall_ms);
  EXPECT_THAT(times, ::testing::ElementsAre(6, 5, 4, 3, 2));
}

}  // namespace
}  // namespace audit_log_test
}  // namespace optserve::audit
