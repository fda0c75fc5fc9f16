// The replica of a journal that works: what it restores, when it goes on and when it begins anew, and what it refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <mutex>
#include <vector>

#include "journal/journal_test_support.h"
#include "journal/replica/replica_folder.h"

namespace optserve::journal {
namespace replica_test {

using namespace testing;  // NOLINT: the tests' own
using ::testing::HasSubstr;
namespace fs = std::filesystem;

class ReplicaTest : public ::testing::Test {
 protected:
  ReplicaTest() {
    fs::create_directory(replica_);
    options_.path = folder_.file("journal.db");
    options_.reserve_bytes = 0;
    options_.replica_folder = replica_;
    options_.replica_interval = milliseconds(1);
  }
  void open(const JournalOptions& options) {
    JournalOptions told = options;
    told.on_state = [this](const JournalState& state) {
      const std::lock_guard lock(mutex_);
      state_ = state.replica;
      ++reports_;
    };
    journal_ = open_journal(told, recovery_);
  }
  void open() { open(options_); }
  static bool wait_long(const std::function<bool()>& condition) {
    for (int i = 0; i < 6; ++i) {
      if (wait_for(condition)) return true;
    }
    return false;
  }
  // By a report that was made after this call.
  bool is_told(const std::function<bool(const ReplicaState&)>& what) {
    uint64_t before = 0;
    {
      const std::lock_guard lock(mutex_);
      before = reports_;
    }
    return wait_long([&] {
      const std::lock_guard lock(mutex_);
      return reports_ > before && what(state_);
    });
  }
  bool is_up_to_date() {
    return is_told([](const ReplicaState& state) { return !state.is_seeding && state.behind == Duration::zero(); });
  }
  void accept(uint64_t first, uint64_t last) {
    uint64_t sequence = 0;
    for (uint64_t order = first; order <= last; ++order) sequence = journal_->append(accepted(order));
    ASSERT_TRUE(wait_durable(*journal_, sequence));
  }
  // What a restore of the replica has; the orders of its open jobs.
  std::vector<uint64_t> restored(const std::string& name = "restored.db") {
    restore_replica(replica_, folder_.file(name), true);
    JournalOptions options = options_;
    options.path = folder_.file(name);
    options.replica_folder.clear();
    EXPECT_EQ(inspect_journal(options.path).damage, "");
    Recovery recovery;
    open_journal(options, recovery);
    std::vector<uint64_t> orders;
    for (const OpenJob& job : recovery.open) orders.push_back(job.accepted.order);
    return orders;
  }
  // The number of the copy: it grows when the database is copied anew.
  uint64_t copy() const { return find_replica(*open_replica_disk(replica_, ReplicaUse::kRead)).value().copy; }

  TempFolder folder_;
  std::string replica_ = folder_.file("replica");
  JournalOptions options_;
  Recovery recovery_;
  std::mutex mutex_;
  ReplicaState state_;
  uint64_t reports_ = 0;
  std::unique_ptr<Journal> journal_;
};

TEST_F(ReplicaTest, HasEveryCommitSoonAfterIt) {
  open();
  accept(1, 3);
  ASSERT_TRUE(is_up_to_date());
  // The machine is lost: only the replica's folder is left, as it is at this moment.
  const std::string saved = folder_.file("saved");
  fs::copy(replica_, saved);
  fs::remove(saved + "/replica.lock");
  restore_replica(saved, folder_.file("restored.db"), false);
  journal_.reset();
  EXPECT_EQ(inspect_journal(folder_.file("restored.db")).open, 3);
  EXPECT_THAT(restored(), ::testing::ElementsAre(1, 2, 3));
}

TEST_F(ReplicaTest, AnOrderlyEndLeavesNothingBehind) {
  options_.replica_interval = seconds(3'600);  // so that only the end ships
  open();
  accept(1, 2);
  journal_.reset();
  EXPECT_THAT(restored(), ::testing::ElementsAre(1, 2));
  const uint64_t before = copy();
  open();
  accept(3, 3);
  journal_.reset();
  EXPECT_EQ(copy(), before) << "the restart copied the database anew";
  EXPECT_THAT(restored("again.db"), ::testing::ElementsAre(1, 2, 3));
}

TEST_F(ReplicaTest, GoesOnAfterAKill) {
  open();
  accept(1, 5);
  ASSERT_TRUE(is_up_to_date());
  const TempFolder killed;
  for (const char* name : {"", "-wal", ".commits"}) {
    write_file(killed.file(std::string("journal.db") + name), read_file(options_.path + name));
  }
  const TempFolder replica;
  for (const auto& entry : fs::directory_iterator(replica_)) {
    write_file(replica.file(entry.path().filename()), read_file(entry.path()));
  }
  journal_.reset();
  replica_ = options_.replica_folder = replica.path();
  options_.path = killed.file("journal.db");
  const uint64_t before = copy();
  open();
  accept(6, 6);
  journal_.reset();
  EXPECT_EQ(copy(), before);
  EXPECT_THAT(restored(), ::testing::ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST_F(ReplicaTest, KeepsUpWithCommitsAndCheckpoints) {
  open();
  for (uint64_t round = 0; round < 40; ++round) {
    accept(1 + round * 50, 50 + round * 50);
    if (round % 20 != 0) continue;
    ASSERT_TRUE(is_up_to_date());
  }
  journal_.reset();
  EXPECT_EQ(restored().size(), 2'000u);
  EXPECT_EQ(copy(), 1u) << "the log was overwritten before it was read";
}

TEST_F(ReplicaTest, ALogThatCannotWaitIsOverwrittenAndTheDatabaseCopiedAnew) {
  options_.checkpoint_bytes = 50'000;  // which the replica's thread cannot follow
  open();
  for (uint64_t round = 0; round < 60; ++round) accept(1 + round * 40, 40 + round * 40);
  ASSERT_TRUE(is_up_to_date());
  journal_.reset();
  EXPECT_EQ(restored().size(), 2'400u);
}

TEST_F(ReplicaTest, OfAnotherJournalIsRefused) {
  open();
  accept(1, 1);
  journal_.reset();
  JournalOptions other = options_;
  other.path = folder_.file("other.db");
  EXPECT_THAT(open_error(other), HasSubstr("holds the replica of another journal"));
  EXPECT_THAT(restored(), ::testing::ElementsAre(1)) << "it was overwritten";
}

TEST_F(ReplicaTest, OfALaterLifeIsRefusedAndARestoredJournalGoesOn) {
  open();
  accept(1, 1);
  journal_.reset();
  const std::string old = folder_.file("old.db");
  write_file(old, read_file(options_.path));
  open();
  accept(2, 2);
  journal_.reset();
  open();
  journal_.reset();
  JournalOptions other = options_;
  other.path = old;
  EXPECT_THAT(open_error(other), HasSubstr("this file is an old copy"));
  restore_replica(replica_, options_.path, true);
  open();
  accept(3, 3);
  ASSERT_TRUE(is_up_to_date());
  journal_.reset();
  EXPECT_THAT(restored(), ::testing::ElementsAre(1, 2, 3));
  EXPECT_EQ(copy(), 2u);
}

// Whatever bytes an id has: a journal that is restored again and again stays itself, and its replica goes on.
TEST_F(ReplicaTest, ManyRestoresLeaveTheJournalItself) {
  open();
  accept(1, 1);
  journal_.reset();
  for (uint64_t round = 2; round < 8; ++round) {
    restore_replica(replica_, options_.path, true);
    open();
    accept(round, round);
    journal_.reset();
  }
  EXPECT_EQ(restored().size(), 7u);
}

TEST_F(ReplicaTest, AFileThatAnotherProgramRewroteIsCopiedAnew) {
  open();
  accept(1, 200);
  journal_.reset();
  {
    Database database(options_.path, Database::Open::kExisting);
    database.execute("DELETE FROM jobs WHERE seq < 150; VACUUM");
  }
  open();
  ASSERT_TRUE(is_up_to_date());
  journal_.reset();
  EXPECT_EQ(restored().size(), 51u);
  EXPECT_EQ(copy(), 2u);
}

TEST_F(ReplicaTest, AFolderThatGoesAwayHoldsUpNoJobAndIsCaughtUpWith) {
  open();
  accept(1, 1);
  ASSERT_TRUE(is_up_to_date());
  fs::rename(replica_, folder_.file("away"));
  accept(2, 2);
  ASSERT_TRUE(is_told([](const ReplicaState& state) { return state.is_failing && state.behind > Duration::zero(); }));
  accept(3, 3);
  fs::rename(folder_.file("away"), replica_);
  ASSERT_TRUE(is_told([](const ReplicaState& state) { return !state.is_failing && state.behind == Duration::zero(); }));
  journal_.reset();
  EXPECT_THAT(restored(), ::testing::ElementsAre(1, 2, 3));
  EXPECT_EQ(copy(), 1u) << "what waited was not enough to go on";
}

// As a lost mount leaves it: a name for an empty folder on another disk.
TEST_F(ReplicaTest, AFolderThatIsSuddenlyOnAnotherDiskIsNotWritten) {
  struct stat here {
  }, memory{};
  if (::stat("/dev/shm", &memory) != 0 || ::access("/dev/shm", W_OK) != 0 ||
      ::stat(folder_.path().c_str(), &here) != 0 || here.st_dev == memory.st_dev) {
    GTEST_SKIP() << "needs /dev/shm on a disk of its own";
  }
  const TempFolder mounted("/dev/shm");
  const std::string link = folder_.file("link");
  const auto point_to = [&](const std::string& target) {
    fs::create_symlink(target, link + ".new");
    fs::rename(link + ".new", link);
  };
  point_to(mounted.path());
  options_.replica_folder = link;
  open();
  accept(1, 1);
  ASSERT_TRUE(is_up_to_date());
  point_to(replica_);
  accept(2, 2);
  ASSERT_TRUE(is_told([](const ReplicaState& state) { return state.is_failing; }));
  EXPECT_TRUE(fs::is_empty(replica_));
  point_to(mounted.path());
  ASSERT_TRUE(is_told([](const ReplicaState& state) { return !state.is_failing && state.behind == Duration::zero(); }));
  journal_.reset();
  replica_ = mounted.path();
  EXPECT_THAT(restored(), ::testing::ElementsAre(1, 2));
}

TEST_F(ReplicaTest, RemovedFilesAreMadeAgain) {
  open();
  accept(1, 1);
  ASSERT_TRUE(is_up_to_date());
  for (const auto& entry : fs::directory_iterator(replica_)) fs::remove(entry);
  accept(2, 2);
  ASSERT_TRUE(wait_long([&] {
    std::error_code none;
    return fs::exists(replica_ + "/1.log", none);
  }));
  ASSERT_TRUE(is_up_to_date());
  journal_.reset();
  EXPECT_THAT(restored(), ::testing::ElementsAre(1, 2));
}

TEST_F(ReplicaTest, ARestoreNamesWhatItCannotUse) {
  const auto error = [&] { return error_of([&] { restore_replica(replica_, folder_.file("x.db"), false); }); };
  EXPECT_FALSE(holds_replica(replica_));
  EXPECT_THAT(error(), HasSubstr("the folder holds none"));
  open();
  accept(1, 1);
  EXPECT_THAT(error(), HasSubstr("a scheduler writes to it"));
  journal_.reset();
  EXPECT_TRUE(holds_replica(replica_));
  EXPECT_THAT(error_of([&] { restore_replica(replica_, options_.path, false); }),
              HasSubstr("there is a journal already"));
}

TEST_F(ReplicaTest, AMissingFolderIsRefusedAtTheStart) {
  options_.replica_folder = "/nowhere";
  EXPECT_THAT(open_error(options_), HasSubstr("/nowhere: no such folder"));
}

}  // namespace replica_test
}  // namespace optserve::journal
