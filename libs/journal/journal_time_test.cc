// What is kept for a limited time is kept that long, whatever the clocks of the machine do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/lasting_time.h"
#include "journal/journal_test_support.h"

namespace optserve::journal {
namespace journal_time_test {

using namespace testing;  // NOLINT: the tests' own

constexpr int64_t kHourMs = 3'600'000;
constexpr int64_t kSteps[] = {1'000, -1'000, 2 * kHourMs, -2 * kHourMs, 240 * kHourMs, -240 * kHourMs};

TEST(LastingTime, GoesOnByWhatTheMachineSaysHasPassed) {
  const auto at = [](int64_t uptime_ms) { return Instant(milliseconds(uptime_ms)); };
  const LastingTime first({}, "a", at(5'000));
  EXPECT_EQ(first.ms(at(5'000)), 0);
  EXPECT_EQ(first.ms(at(5'300)), 300);
  const LastingTime::Mark mark = first.mark(at(5'300));
  EXPECT_EQ(LastingTime(mark, "a", at(9'300)).ms(at(9'301)), 4'301);  // the next process of the same boot
  EXPECT_EQ(LastingTime(mark, "b", at(9'300)).ms(at(9'301)), 301);    // nobody knows how long the machine was off
  EXPECT_EQ(LastingTime(mark, "b", at(10)).ms(at(20)), 310);
  EXPECT_EQ(LastingTime(mark, "", at(9'300)).ms(at(9'301)), 301);  // the system does not say
  EXPECT_EQ(LastingTime({300, "", 5'300}, "", at(9'300)).ms(at(9'301)), 301);
  EXPECT_EQ(LastingTime(mark, "a", at(5'200)).ms(at(5'200)), 300);  // time of a clock that went back is not counted
}

// The wall clock can be set. The end of a suspend looks the same, since now() stands still meanwhile.
class SettableClock final : public Clock {
 public:
  Instant now() const override { return time_.now(); }
  int64_t wall_ms() const override { return 1'767'225'599'000 + offset_ms_ + time_.wall_ms(); }
  void set(int64_t by_ms) { offset_ms_ += by_ms; }
  void advance(Duration by) { time_.advance(by); }

 private:
  FakeClock time_;
  std::atomic<int64_t> offset_ms_{0};
};

bool has_key(const Recovery& recovery, const std::string& key) {
  return std::any_of(recovery.keys.begin(), recovery.keys.end(),
                     [&](const KnownKey& known) { return known.key == key; });
}

class JournalTimes : public ::testing::TestWithParam<std::tuple<int64_t, bool>> {
 protected:
  void open() {
    journal.reset();
    recovery = {};
    journal = Journal::open({.path = folder.file("journal.db"), .boot = boot}, clock, recovery);
  }
  void finish(uint64_t order, Duration ttl) {
    journal->append(accepted(order));
    Finished end = finished(order, "kept");
    end.expires_at_ms = journal->time_ms(clock.now()) + std::chrono::duration_cast<milliseconds>(ttl).count();
    wait_durable(*journal, journal->append(end));
  }
  // Waits until the journal's thread has looked for what has expired.
  void let_it_purge() {
    clock.advance(seconds(1));
    const uint64_t before = journal->purged();
    finish(++marker, milliseconds(0));
    clock.advance(seconds(1));
    ASSERT_TRUE(wait_for([&] { return journal->purged() > before; }));
  }

  TempFolder folder, backups;  // outlive the journal
  SettableClock clock;
  std::string boot = "a";
  Recovery recovery;
  std::unique_ptr<Journal> journal;
  uint64_t marker = 1'000;
};

TEST_P(JournalTimes, AStepOfTheWallClockNeitherLosesNorKeepsAnything) {
  const auto [step, reboots] = GetParam();
  open();
  finish(1, seconds(3'600));
  clock.set(step);  // with a result from before, while it runs
  let_it_purge();
  finish(2, seconds(3'600));
  let_it_purge();
  EXPECT_TRUE(fetch(*journal, id_of(1)).has_value());
  EXPECT_TRUE(fetch(*journal, id_of(2)).has_value());
  clock.set(step);  // and between two processes
  if (reboots) boot += "a";
  open();
  EXPECT_TRUE(has_key(recovery, "key-1"));
  EXPECT_TRUE(has_key(recovery, "key-2"));
  let_it_purge();
  EXPECT_TRUE(fetch(*journal, id_of(1)).has_value());
  EXPECT_TRUE(fetch(*journal, id_of(2)).has_value());
  clock.set(-3 * step);
  clock.advance(seconds(3'600));  // they are kept as long as specified, and not longer
  let_it_purge();
  EXPECT_FALSE(fetch(*journal, id_of(1)).has_value());
  EXPECT_FALSE(fetch(*journal, id_of(2)).has_value());
}

TEST_P(JournalTimes, ARestartKnowsHowOldAnOpenJobIs) {
  const auto [step, reboots] = GetParam();
  open();
  Accepted job = accepted(1);
  job.accepted_at_ms = journal->time_ms(clock.now());
  wait_durable(*journal, journal->append(job));
  clock.advance(seconds(20));
  wait_durable(*journal, journal->append(accepted(2)));
  clock.set(step);
  clock.advance(seconds(40));
  if (reboots) boot += "a";
  open();
  const int64_t age_ms = journal->time_ms(clock.now()) - recovery.open[0].accepted.accepted_at_ms;
  EXPECT_EQ(age_ms, reboots ? 20'000 : 60'000);
}

TEST_P(JournalTimes, BackupsFollowEachOtherAndTheNewestIsKept) {
  const auto [step, reboots] = GetParam();
  std::string newest;
  for (int start = 0; start < 2; ++start) {
    journal.reset();
    journal = Journal::open({.path = folder.file("journal.db"),
                             .backup_folder = backups.path(),
                             .backup_interval = milliseconds(0),
                             .backups_kept = 2,
                             .boot = boot},
                            clock, recovery);
    for (int i = 0; i < 3; ++i) {
      newest = ask_for<BackUpDone>(*journal, BackUp{}).file;
      EXPECT_EQ(latest_backup(backups.path()), backups.file(newest));
      clock.set(step);
      clock.advance(seconds(2));
    }
    if (reboots) boot += "a";
  }
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(backups.path()), {}), 2);
}

TEST_P(JournalTimes, ABackupIsTakenInItsInterval) {
  const auto [step, reboots] = GetParam();
  const auto count = [&] { return std::distance(std::filesystem::directory_iterator(backups.path()), {}); };
  journal = Journal::open({.path = folder.file("journal.db"),
                           .backup_folder = backups.path(),
                           .backup_interval = seconds(3'600),
                           .boot = boot},
                          clock, recovery);
  ASSERT_TRUE(wait_for([&] { return !latest_backup(backups.path()).empty(); }));
  clock.set(step);
  let_it_purge();
  EXPECT_EQ(count(), 1);
  clock.advance(seconds(3'600));
  EXPECT_TRUE(wait_for([&] { return count() == 2; }));
}

TEST_P(JournalTimes, ARestoredBackupGoesOnFromItsMoment) {
  const std::string path = folder.file("journal.db");
  journal =
      Journal::open({.path = path, .backup_folder = backups.path(), .backup_interval = milliseconds(0), .boot = boot},
                    clock, recovery);
  finish(1, seconds(3'600));
  Accepted job = accepted(2);
  job.accepted_at_ms = journal->time_ms(clock.now());
  journal->append(job);
  const std::string backup = backups.file(ask_for<BackUpDone>(*journal, BackUp{}).file);
  journal.reset();
  clock.advance(seconds(3 * 24 * 3'600));
  restore_journal(backup, path, true);
  open();
  EXPECT_TRUE(has_key(recovery, "key-1"));
  EXPECT_TRUE(fetch(*journal, id_of(1)).has_value());
  EXPECT_EQ(journal->time_ms(clock.now()) - recovery.open.at(0).accepted.accepted_at_ms, 0);
  clock.advance(seconds(3'601));
  EXPECT_FALSE(fetch(*journal, id_of(1)).has_value());
}

std::string name_of(const ::testing::TestParamInfo<std::tuple<int64_t, bool>>& info) {
  const auto [step, reboots] = info.param;
  return (step < 0 ? "Back" : "Forward") + std::to_string(std::abs(step) / 1'000) + "s" + (reboots ? "Reboot" : "");
}

INSTANTIATE_TEST_SUITE_P(Steps, JournalTimes, ::testing::Combine(::testing::ValuesIn(kSteps), ::testing::Bool()),
                         name_of);

}  // namespace journal_time_test
}  // namespace optserve::journal
