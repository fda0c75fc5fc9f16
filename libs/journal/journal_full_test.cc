// The journal without room: by its own limit, on a disk that reports it, and on a small file system.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include <atomic>
#include <filesystem>
#include <fstream>

#include "journal/journal_test_support.h"
#include "journal/sqlite/crash_vfs.h"
#include "journal/sqlite/disk_reserve.h"

namespace optserve::journal {
namespace journal_full_test {

using namespace testing;  // NOLINT: the tests' own

// Accepts jobs of 4 KB until the journal says that it is full; returns how many.
uint64_t fill(Journal& journal) {
  uint64_t order = 0;
  while (!journal.is_full() && order < 100'000) {
    journal.append(accepted(++order, std::string(4'000, 'x')));
    wait_for([&] { return journal.is_full() || journal.durable() == order; });
  }
  return order;
}

size_t open_jobs(const JournalOptions& options) {
  Recovery recovery;
  open_journal(options, recovery);
  return recovery.open.size();
}

TEST(JournalFull, TheReserveTakesWhatIsKnownAndRoomReopens) {
  TempFolder folder;
  JournalOptions options{.path = folder.file("journal.db")};
  options.database_bytes_max = 1 << 20;
  options.reserve_bytes = 128 << 10;
  {
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    const uint64_t accepted_jobs = fill(*journal);
    ASSERT_TRUE(journal->is_full());
    // The batch that found no room is nevertheless stored, and so are the ends of jobs.
    ASSERT_TRUE(wait_durable(*journal, accepted_jobs));
    uint64_t last = 0;
    for (uint64_t order = 1; order < accepted_jobs; ++order) last = journal->append(finished(order, "ended", 1));
    ASSERT_TRUE(wait_durable(*journal, last));
    // When results expire, their room becomes free again.
    EXPECT_TRUE(wait_for([&] { return !journal->is_full(); }));
    ASSERT_TRUE(wait_durable(*journal, journal->append(accepted(accepted_jobs + 1))));
  }
  EXPECT_EQ(open_jobs(options), 2u);
}

TEST(JournalFull, BeyondTheReserveRecordsWaitAndQuestionsAreRefused) {
  TempFolder folder;
  JournalOptions options{.path = folder.file("journal.db")};
  options.database_bytes_max = 1 << 20;
  options.reserve_bytes = 64 << 10;
  options.batch_records_max = 16;
  uint64_t durable = 0;
  {
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    uint64_t order = 0;
    for (; order < 400; ++order) journal->append(accepted(order + 1, std::string(4'000, 'x')));
    ASSERT_TRUE(wait_for([&] { return journal->is_full(); }));
    EXPECT_EQ(std::get<Refusal>(ask(*journal, FindResult{id_of(1)})).code, ErrorCode::kStorageFull);
    durable = journal->durable();
    EXPECT_GT(durable, 0u);
    EXPECT_LT(durable, order);
    EXPECT_NO_THROW(journal->append(accepted(order + 1)));
    EXPECT_TRUE(journal->is_full());
  }
  EXPECT_EQ(open_jobs(options), durable);  // what was never durable was never promised
}

// A disk that has no room for a while, for any operation.
TEST(JournalFull, RecordsAreTriedAgainUntilTheDiskHasRoom) {
  TempFolder folder;
  CrashVfs vfs;
  std::atomic<bool> is_full{false};
  std::atomic<int> refused{0};
  vfs.before = [&](IoKind kind, const std::string&) {
    if (kind != IoKind::kWrite || !is_full) return SQLITE_OK;
    ++refused;
    return SQLITE_FULL;
  };
  JournalOptions options{.path = folder.file("journal.db")};
  options.reserve_bytes = 1 << 20;
  {
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    ASSERT_TRUE(wait_durable(*journal, journal->append(accepted(1))));
    EXPECT_EQ(std::filesystem::file_size(options.path + ".reserve"), 1u << 20);
    is_full = true;
    journal->append(accepted(2));
    journal->append(finished(1, "ended"));
    ASSERT_TRUE(wait_for([&] { return refused > 6; }));
    EXPECT_TRUE(journal->is_full());
    EXPECT_EQ(journal->durable(), 1u);
    EXPECT_FALSE(std::filesystem::exists(options.path + ".reserve"));
    is_full = false;
    ASSERT_TRUE(wait_durable(*journal, 3));
    ASSERT_TRUE(wait_for([&] { return !journal->is_full(); }));
    EXPECT_EQ(std::filesystem::file_size(options.path + ".reserve"), 1u << 20);
    EXPECT_EQ(fetch(*journal, id_of(1))->text, "ended");
  }
  EXPECT_EQ(open_jobs(options), 1u);
}

TEST(JournalFull, OtherFailuresAreFinal) {
  TempFolder folder;
  CrashVfs vfs;
  std::atomic<int> syncs{0};
  std::atomic<bool> fails{false};
  vfs.before = [&](IoKind kind, const std::string&) {
    if (kind != IoKind::kSync || !fails) return SQLITE_OK;
    return ++syncs == 1 ? SQLITE_IOERR_FSYNC : SQLITE_OK;
  };
  Recovery recovery;
  auto journal = open_journal({.path = folder.file("journal.db")}, recovery);
  fails = true;
  journal->append(accepted(1));
  ASSERT_TRUE(wait_for([&] { return !error_of([&] { journal->durable(); }).empty(); }));
  EXPECT_THROW(journal->append(accepted(2)), Error);
  EXPECT_THROW(journal->poll_answers(), Error);
  EXPECT_FALSE(journal->is_full());
}

TEST(DiskReserve, TakesRoomAndGivesItBack) {
  TempFolder folder;
  DiskReserve reserve(folder.file("journal.db"), 1 << 20);
  EXPECT_TRUE(reserve.fill());
  struct stat status {};
  ASSERT_EQ(::stat(folder.file("journal.db.reserve").c_str(), &status), 0);
  EXPECT_GE(status.st_blocks * 512, 1 << 20);
  EXPECT_TRUE(reserve.fill());
  reserve.release();
  EXPECT_FALSE(std::filesystem::exists(folder.file("journal.db.reserve")));
  EXPECT_TRUE(reserve.has_room_for_it());
  EXPECT_FALSE(DiskReserve(folder.file("journal.db"), int64_t{1} << 60).has_room_for_it());
  EXPECT_FALSE(DiskReserve(folder.file("journal.db"), int64_t{1} << 50).fill());
  EXPECT_FALSE(std::filesystem::exists(folder.file("journal.db.reserve")));
}

// --- a real file system of a few MiB, in a child with mounts of its own

constexpr int kCannotMount = 77;

bool mount_small(const std::string& folder) {
  const uid_t user = ::getuid();
  const gid_t group = ::getgid();
  if (::unshare(CLONE_NEWNS) != 0) {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    std::ofstream("/proc/self/setgroups") << "deny";
    std::ofstream("/proc/self/uid_map") << "0 " << user << " 1";
    std::ofstream("/proc/self/gid_map") << "0 " << group << " 1";
  }
  ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
  return ::mount("tmpfs", folder.c_str(), "tmpfs", 0, "size=6m") == 0;
}

// The exit status is 0 if all checks hold, otherwise the number of the check that fails.
int run_on_a_small_disk(const std::string& folder) {
  if (!mount_small(folder)) return kCannotMount;
  JournalOptions options{.path = folder + "/journal.db"};
  options.reserve_bytes = 1 << 20;
  uint64_t accepted_jobs = 0;
  {
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    // Another program takes so much space that twice the reserve is never free.
    std::ofstream(folder + "/ballast") << std::string(4 << 20, 'b') << std::flush;
    accepted_jobs = fill(*journal);
    if (!journal->is_full()) return 1;
    if (!wait_durable(*journal, accepted_jobs)) return 2;  // into the reserve
    if (!wait_durable(*journal, journal->append(finished(1, "ended")))) return 3;
    if (fetch(*journal, id_of(1))->text != "ended") return 4;
    if (!journal->is_full()) return 5;
    std::filesystem::remove(folder + "/ballast");
    if (!wait_for([&] { return !journal->is_full(); })) return 6;
    if (!wait_durable(*journal, journal->append(accepted(accepted_jobs + 1)))) return 7;
  }
  return open_jobs(options) == accepted_jobs ? 0 : 8;
}

TEST(JournalFull, ARealDiskFillsUpAndRecovers) {
  TempFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    int status = 99;
    try {
      status = run_on_a_small_disk(folder.path());
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    ::_exit(status);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kCannotMount) GTEST_SKIP() << "no mounts of our own here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace journal_full_test
}  // namespace optserve::journal
