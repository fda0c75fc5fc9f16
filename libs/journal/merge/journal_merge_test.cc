// Journals of both kinds are merged into both kinds: nothing is lost or counted twice, whatever ends the merge.
#include "journal/merge/journal_merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdio>
#include <map>
#include <random>
#include <tuple>

#include "journal/journal_test_contract.h"

namespace optserve::journal {
namespace journal_merge_test {

using namespace testing;  // NOLINT: the tests' own
using protocol::JobState;
using ::testing::HasSubstr;

const SystemClock& system_clock() {
  static const SystemClock clock;
  return clock;
}

// Two queues, A and B; A is merged into B.
class Merges : public ::testing::TestWithParam<std::tuple<Kind, Kind>> {
 protected:
  Merges() {
    options.from = fresh("a", std::get<0>(GetParam()));
    options.into = fresh("b", std::get<1>(GetParam()));
    options.batch_jobs = 3;
  }
  JournalOptions fresh(const std::string& name, Kind kind) const {
    JournalOptions fresh;
    fresh.reserve_bytes = 0;
    if (kind == Kind::kSqlite) {
      fresh.path = folder.file(name + ".db");
    } else {
      fresh.path = shared_server().url();
      fresh.queue = fresh_queue(shared_server());
      fresh.stand_by = [](const std::string&) { return true; };
    }
    return fresh;
  }
  // Starts a scheduler's journal and writes the records.
  static Recovery write(const JournalOptions& to, const std::vector<Record>& records) {
    Recovery recovery;
    const auto journal = open_journal(to, recovery);
    uint64_t last = 0;
    for (const Record& record : records) last = journal->append(record);
    EXPECT_TRUE(wait_durable(*journal, last));
    return recovery;
  }
  MergeOutcome merge() const { return merge_journals(options, system_clock()); }

  // What a journal holds, by job: the open job or its result.
  struct Content {
    std::map<std::string, OpenJob> open;
    std::map<std::string, protocol::JobResult> ended;
    std::map<std::string, JobId> keys;  // as a scheduler would answer
    Recovery recovery;
  };
  static Content content(const JournalOptions& of) {
    Content found;
    const auto journal = open_journal(of, found.recovery);
    for (const KnownKey& key : found.recovery.keys) {
      found.ended[key.job.hex()] = fetch(*journal, key.job).value();
      found.keys[key.key] = key.job;
    }
    for (const OpenJob& job : found.recovery.open) {
      found.open[job.accepted.job.hex()] = job;
      found.keys[job.accepted.spec.key] = job.accepted.job;
    }
    return found;
  }

  TempFolder folder;
  MergeOptions options;
};

std::string name(uint64_t id) { return id_of(id).hex(); }

// The job `id` of a queue in which it has the place `order`.
Accepted job(uint64_t id, uint64_t order) {
  Accepted record = accepted(id, "prompt " + std::to_string(id));
  record.order = order;
  return record;
}
Finished end(uint64_t id, uint64_t order, JobState state = JobState::kSucceeded) {
  Finished record = finished(id, "text " + std::to_string(id));
  record.order = order;
  record.result.state = state;
  return record;
}

TEST_P(Merges, MoveEverythingAndTheSecondRunChangesNothing) {
  for (int start = 0; start < 5; ++start) write(options.from, {});  // A has the higher term
  const uint64_t term =
      write(options.from,
            {job(11, 1), job(12, 2), job(13, 3), job(14, 4), job(15, 5), Leased{id_of(12), 2, {6, 1}, 1},
             Leased{id_of(12), 2, {}, 1, "lost"}, Leased{id_of(12), 2, {6, 2}, 2}, Leased{id_of(12), 2, {}, 2, "again"},
             Leased{id_of(12), 2, {6, 3}, 3}, Progress{id_of(12), 2, {7, 8, 9}}, Leased{id_of(14), 4, {6, 4}, 1},
             end(13, 3), Leased{id_of(14), 4, {}, 1, "x"}, end(14, 4, JobState::kDead)})
          .term;
  write(options.into, {job(1, 1), job(2, 2), end(2, 2)});

  const MergeOutcome outcome = merge();
  EXPECT_EQ(outcome.open, 3u);
  EXPECT_EQ(outcome.ended, 2u);
  EXPECT_EQ(outcome.duplicates + outcome.known + outcome.conflicts.size(), 0u);
  EXPECT_GT(outcome.term, term + 1);  // the merge itself was a start of A

  const Content a = content(options.from);
  EXPECT_TRUE(a.open.empty() && a.ended.empty());
  ASSERT_EQ(a.recovery.modes.size(), 1u);
  EXPECT_EQ(a.recovery.modes[0].mode, protocol::QueueMode::kDraining);
  const auto expect_b = [&] {
    const Content b = content(options.into);
    ASSERT_EQ(b.open.size(), 4u);
    ASSERT_EQ(b.ended.size(), 3u);
    const OpenJob& moved = b.open.at(name(12));
    EXPECT_EQ(moved.attempts, 2) << "the third was cut short by the scheduler's end";
    EXPECT_EQ(moved.crashes, 1);
    EXPECT_THAT(moved.losses, ::testing::ElementsAre("lost", "again"));
    EXPECT_THAT(moved.progress, ::testing::ElementsAre(7, 8, 9));
    EXPECT_EQ(moved.accepted.spec, job(12, 2).spec);
    EXPECT_EQ(moved.accepted.payload_sha256, job(12, 2).payload_sha256);
    EXPECT_GT(b.recovery.term, outcome.term);
    EXPECT_TRUE(b.recovery.modes.empty());
    EXPECT_EQ(b.ended.at(name(13)).text, "text 13");
    EXPECT_EQ(b.keys.at("key-13"), id_of(13));
    Recovery ignored;
    const auto journal = open_journal(options.into, ignored);
    const DeadFound dead = ask_for<DeadFound>(*journal, FindDead{id_of(14)});
    ASSERT_TRUE(dead.job);
    EXPECT_EQ(dead.job->spec, job(14, 4).spec);
  };
  expect_b();
  const MergeOutcome again = merge();
  EXPECT_EQ(again.open + again.ended + again.duplicates + again.known, 0u);
  expect_b();
}

TEST_P(Merges, AKeyInBothCountsOnceAndAnotherPayloadStays) {
  std::vector<Record> in_a, in_b;
  const auto both = [&](uint64_t place, JobState a, JobState b) {
    Accepted mine = job(10 + place, place), theirs = job(20 + place, place);
    mine.spec.key = theirs.spec.key = "shared-" + std::to_string(place);
    mine.payload_sha256 = theirs.payload_sha256;
    for (const auto& [record, state, to] : {std::tuple(mine, a, &in_a), std::tuple(theirs, b, &in_b)}) {
      to->emplace_back(record);
      if (!protocol::is_terminal(state)) continue;
      Finished ended = end(record.job == mine.job ? 10 + place : 20 + place, place, state);
      ended.result.key = record.spec.key;
      ended.payload_sha256 = record.payload_sha256;
      to->emplace_back(ended);
    }
  };
  both(1, JobState::kQueued, JobState::kQueued);
  both(2, JobState::kSucceeded, JobState::kQueued);
  both(3, JobState::kQueued, JobState::kSucceeded);
  both(4, JobState::kSucceeded, JobState::kFailed);
  both(5, JobState::kFailed, JobState::kSucceeded);
  both(6, JobState::kQueued, JobState::kQueued);
  std::get<Accepted>(in_a.back()).payload_sha256 = std::string(32, 'x');
  write(options.from, in_a);
  write(options.into, in_b);

  const MergeOutcome outcome = merge();
  ASSERT_EQ(outcome.conflicts.size(), 1u);
  EXPECT_EQ(outcome.conflicts[0].key, "shared-6");
  EXPECT_EQ(outcome.conflicts[0].from, id_of(16));
  EXPECT_EQ(outcome.conflicts[0].into, id_of(26));
  const Content a = content(options.from);
  ASSERT_EQ(a.open.size(), 1u);
  EXPECT_EQ(a.open.begin()->first, name(16));

  const Content b = content(options.into);
  // Only the jobs that run there already are open, and each id of A is known.
  ASSERT_EQ(b.open.size(), 2u);
  EXPECT_TRUE(b.open.contains(name(21)) && b.open.contains(name(26)));
  const auto expect_key = [&](const std::string& key, uint64_t id) { EXPECT_EQ(b.keys.at(key), id_of(id)) << key; };
  expect_key("shared-1", 21);
  EXPECT_EQ(b.ended.at(name(11)).state, JobState::kCancelled);
  EXPECT_THAT(b.ended.at(name(11)).message, HasSubstr(name(21)));
  expect_key("shared-2", 22);
  EXPECT_EQ(b.ended.at(name(22)).text, "text 12");
  EXPECT_EQ(b.ended.at(name(12)).text, "text 12");
  expect_key("shared-3", 23);
  EXPECT_EQ(b.ended.at(name(13)).text, "text 23");
  EXPECT_EQ(b.ended.at(name(13)).job, id_of(13));
  expect_key("shared-4", 14);
  expect_key("shared-5", 25);
  EXPECT_EQ(b.ended.at(name(15)).state, JobState::kFailed);

  EXPECT_EQ(merge().conflicts.size(), 1u);
  EXPECT_EQ(content(options.into).ended.size(), b.ended.size());
}

// kill -9 of its own process at a certain question for the time, of which each step of a merge asks several.
class DeadlyClock final : public Clock {
 public:
  explicit DeadlyClock(int questions) : left_(questions) {}
  Instant now() const override {
    if (--left_ == 0) ::raise(SIGKILL);
    return system_clock().now();
  }
  int64_t wall_ms() const override { return system_clock().wall_ms(); }

 private:
  mutable std::atomic<int> left_;
};

// The merge is killed again and again, and the journals are the same as after a merge that nothing ended.
TEST_P(Merges, AnyKillIsMadeGoodByTheNextRun) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr uint64_t kJobs = 60;
  std::vector<Record> records;
  for (uint64_t i = 1; i <= kJobs; ++i) {
    records.emplace_back(job(100 + i, i));
    if (i % 3 == 0) records.emplace_back(end(100 + i, i));
  }
  write(options.from, records);
  write(options.into, {job(1, 1)});
  // A new leader in PostgreSQL waits for the session of a killed one, so there are fewer kills.
  const bool is_sqlite = std::get<0>(GetParam()) == Kind::kSqlite && std::get<1>(GetParam()) == Kind::kSqlite;
  const int kills_max = is_sqlite ? 40 : 2;
  if (is_sqlite) options.batch_jobs = 1;
  int kills = 0;
  for (bool is_done = false; !is_done && kills < kills_max;) {
    const int question = static_cast<int>(10 + random() % 40);
    const pid_t child = ::fork();
    if (child == 0) {
      int code = 1;
      try {
        merge_journals(options, DeadlyClock(question));
        code = 0;
      } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
      }
      ::_exit(code);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    is_done = WIFEXITED(status);
    EXPECT_TRUE(!is_done || WEXITSTATUS(status) == 0);
    kills += is_done ? 0 : 1;
  }
  EXPECT_GT(kills, 0);
  RecordProperty("kills", kills);
  const MergeOutcome last = merge();
  EXPECT_TRUE(last.conflicts.empty());
  EXPECT_EQ(last.duplicates, 0u);
  const Content a = content(options.from), b = content(options.into);
  EXPECT_TRUE(a.open.empty() && a.ended.empty());
  EXPECT_EQ(b.open.size(), 1 + kJobs - kJobs / 3);
  EXPECT_EQ(b.ended.size(), kJobs / 3);
  EXPECT_EQ(b.recovery.open.size(), b.open.size()) << "a job is there twice";
  EXPECT_EQ(b.recovery.keys.size(), b.ended.size()) << "a result is there twice";
  for (const auto& [id, open] : b.open) EXPECT_EQ(open.attempts, 0) << id;
}

INSTANTIATE_TEST_SUITE_P(Stores, Merges,
                         ::testing::Combine(::testing::Values(Kind::kSqlite, Kind::kPostgres),
                                            ::testing::Values(Kind::kSqlite, Kind::kPostgres)),
                         [](const auto& about) {
                           const auto word = [](Kind kind) { return kind == Kind::kSqlite ? "Sqlite" : "Postgres"; };
                           return std::string(word(std::get<0>(about.param))) + "Into" + word(std::get<1>(about.param));
                         });

// --- what only files have

class FileMerges : public ::testing::Test {
 protected:
  FileMerges() {
    options.from.path = folder.file("a.db");
    options.into.path = folder.file("b.db");
    options.from.reserve_bytes = options.into.reserve_bytes = 0;
    for (const JournalOptions& each : {options.from, options.into}) {
      Recovery recovery;
      const auto journal = open_journal(each, recovery);
      journal->append(job(each.path == options.from.path ? 11 : 21, 1));
    }
  }
  std::string merge_error() const {
    return error_of([&] { merge_journals(options, system_clock()); });
  }
  size_t open_in(const JournalOptions& of) const {
    Recovery recovery;
    open_journal(of, recovery);
    return recovery.open.size();
  }
  TempFolder folder;
  MergeOptions options;
};

TEST_F(FileMerges, AJournalThatIsInUseOrNotThereIsRefusedWithNothingChanged) {
  {
    Recovery recovery;
    const auto journal = open_journal(options.into, recovery);
    EXPECT_THAT(merge_error(), HasSubstr("is held by another process"));
  }
  EXPECT_EQ(open_in(options.from), 1u);
  const std::string into = std::exchange(options.into.path, folder.file("typo.db"));
  EXPECT_THAT(merge_error(), HasSubstr("typo.db: no such file"));
  EXPECT_FALSE(std::filesystem::exists(folder.file("typo.db")));
  options.into.path = options.from.path;
  EXPECT_THAT(merge_error(), HasSubstr("into itself"));
  options.into.path = folder.path() + "/./a.db";
  EXPECT_THAT(merge_error(), HasSubstr("into itself"));
  EXPECT_EQ(open_in(options.from), 1u);
  options.into.path = into;
  EXPECT_EQ(open_in(options.into), 1u);
}

TEST_F(FileMerges, TimesGoOnFromOneClockToTheOther) {
  FakeClock clock;
  const auto open = [&](const JournalOptions& of, Recovery& recovery) { return Journal::open(of, clock, recovery); };
  Recovery recovery;
  {
    const auto older = open(options.into, recovery);
    clock.advance(std::chrono::hours(5));
    wait_durable(*older, older->append(job(22, 2)));
  }
  {
    const auto journal = open(options.from, recovery);
    clock.advance(seconds(1'000));
    const int64_t now = journal->time_ms(clock.now());
    Accepted waits = job(12, 2);
    waits.accepted_at_ms = now - 500'000;
    journal->append(waits);
    journal->append(job(13, 3));
    Finished ended = end(13, 3);
    ended.expires_at_ms = now + 900'000;
    wait_durable(*journal, journal->append(ended));
  }
  merge_journals(options, clock);
  recovery = {};
  const auto journal = open(options.into, recovery);
  const int64_t now = journal->time_ms(clock.now());
  EXPECT_GT(now, 5 * 3'600'000);
  ASSERT_EQ(recovery.keys.size(), 1u);
  EXPECT_EQ(recovery.keys[0].expires_at_ms - now, 900'000);
  EXPECT_EQ(now - recovery.open.back().accepted.accepted_at_ms, 500'000);
}

TEST_F(FileMerges, ABackupStaysAsItIsAndIsMergedOnce) {
  const std::string backup = folder.file("backup.db");
  std::filesystem::copy_file(options.from.path, backup);
  const std::string before = read_file(backup);
  const MergeSource source = merge_source(backup);
  EXPECT_TRUE(source.is_a_copy);
  EXPECT_EQ(source.path, backup + ".merged");
  options.from.path = source.path;
  const MergeOutcome outcome = merge_journals(options, system_clock());
  EXPECT_EQ(outcome.open, 1u);
  EXPECT_GT(outcome.term, 1'000'000u) << "leases may have been given since the backup";
  EXPECT_EQ(read_file(backup), before);
  {
    Recovery recovery;  // the job ends, and its result expires
    const auto journal = open_journal(options.into, recovery);
    for (const OpenJob& open : recovery.open) {
      Finished ended = end(11, open.accepted.order);
      ended.result.job = open.accepted.job;
      ended.expires_at_ms = journal->time_ms(system_clock().now());
      journal->append(ended);
    }
  }
  options.from.path = merge_source(backup).path;
  EXPECT_EQ(merge_journals(options, system_clock()).open, 0u);
  EXPECT_EQ(open_in(options.into), 0u);
}

TEST_F(FileMerges, JobsThatBelongElsewhereStayInAnOpenQueue) {
  {
    Recovery recovery;
    const auto journal = open_journal(options.from, recovery);
    for (const uint64_t i : {2, 3, 4, 5}) journal->append(job(10 + i, i));
    journal->append(end(14, 4));
    wait_durable(*journal, journal->append(end(15, 5)));
  }
  options.belongs = [](const std::string&, const std::string& key) { return key == "key-13" || key == "key-15"; };
  const MergeOutcome outcome = merge_journals(options, system_clock());
  EXPECT_EQ(outcome.open, 1u);
  EXPECT_EQ(outcome.ended, 1u);
  EXPECT_EQ(outcome.stayed, 3u);
  Recovery from, into;
  open_journal(options.from, from);
  open_journal(options.into, into);
  ASSERT_EQ(from.open.size(), 2u);
  EXPECT_EQ(from.open[1].accepted.job, id_of(12));
  ASSERT_EQ(from.keys.size(), 1u);
  EXPECT_EQ(from.keys[0].job, id_of(14));
  EXPECT_TRUE(from.modes.empty());
  EXPECT_EQ(into.open.size(), 2u);
  EXPECT_EQ(into.keys.size(), 1u);
}

TEST_F(FileMerges, TheSourceIsAJournalABackupOrTheNewestOfAFolder) {
  EXPECT_FALSE(merge_source(options.from.path).is_a_copy);
  EXPECT_FALSE(merge_source("postgresql://h/db").is_a_copy);
  const std::string backups = folder.file("backups");
  std::filesystem::create_directory(backups);
  EXPECT_THAT(error_of([&] { merge_source(backups); }), HasSubstr("holds neither a backup nor a replica"));
  EXPECT_THAT(error_of([&] { merge_source(folder.file("none.db")); }), HasSubstr("no such file"));
  std::filesystem::copy_file(options.from.path, backups + "/journal-20260101T000000.000Z.db");
  std::filesystem::copy_file(options.from.path, backups + "/journal-20260101T000001.000Z.db");
  EXPECT_EQ(merge_source(backups + "/").path, backups + "/journal-20260101T000001.000Z.db.merged");
  EXPECT_EQ(merge_source(backups).path, backups + "/journal-20260101T000001.000Z.db.merged");
}

}  // namespace journal_merge_test
}  // namespace optserve::journal
