#include "journal/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <atomic>
#include <chrono>
#include <random>
#include <set>

#include "journal/crc32c.h"
#include "journal/journal_database.h"
#include "journal/journal_test_contract.h"
#include "journal/journal_test_model.h"

namespace optserve::journal {
namespace journal_test {

using namespace testing;  // NOLINT: the tests' own

TEST(Crc32c, MatchesTheStandardCheckValue) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c("6789", crc32c("12345")), 0xE3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);  // RFC 3720, B.4
}

TEST(Journal, TellsHowItIs) {
  TempFolder folder;
  std::atomic<size_t> records{0};
  std::atomic<int64_t> bytes{0}, free_bytes{0};
  JournalOptions options{.path = folder.file("journal.db")};
  options.on_commit = [&](size_t count, Duration time) {
    records += count;
    EXPECT_GT(time, Duration::zero());
  };
  options.on_state = [&](const JournalState& state) {
    bytes = state.bytes + state.log_bytes;
    free_bytes = state.disk_free_bytes;
    EXPECT_FALSE(state.is_full);
    EXPECT_EQ(state.last_backup_wall_s, 0);
  };
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  journal->append(accepted(1));
  ASSERT_TRUE(wait_durable(*journal, journal->append(accepted(2))));
  EXPECT_EQ(records, 2u);
  EXPECT_TRUE(wait_for([&] { return bytes > 0 && free_bytes > 0; }));
}

class Journals : public JournalContract {};
OPTSERVE_JOURNAL_CONTRACT(Journals);

TEST_P(Journals, RecoversJobsLeasesProgressAndKeys) {
  {
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    EXPECT_EQ(recovery.term, 1u);
    EXPECT_EQ(recovery.next_order, 1u);
    EXPECT_TRUE(recovery.open.empty());
    for (uint64_t order = 1; order <= 4; ++order) journal->append(accepted(order));
    journal->append(Leased{id_of(2), 2, {1, 7}, 2});
    journal->append(Progress{id_of(2), 2, {5}});
    journal->append(Progress{id_of(2), 2, {5, 6, 7}});
    journal->append(Progress{id_of(99), 99, {1}});  // no such job: no row
    journal->append(finished(3, "three"));
    journal->append(Leased{id_of(4), 4, {1, 8}, 1});
    EXPECT_EQ(journal->append(Leased{id_of(4), 4, {1, 0}, 0}), 11u);  // given back
  }
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  EXPECT_EQ(recovery.term, 2u);
  EXPECT_EQ(recovery.next_order, 5u);
  ASSERT_EQ(recovery.open.size(), 3u);
  EXPECT_EQ(recovery.open[0].accepted.spec, accepted(1).spec);
  EXPECT_EQ(recovery.open[0].accepted.payload_sha256, accepted(1).payload_sha256);
  EXPECT_EQ(recovery.open[0].crashes, 0);
  EXPECT_EQ(recovery.open[1].accepted.job, id_of(2));
  EXPECT_EQ(recovery.open[1].attempts, 1);  // the attempt that the stop cut short does not count
  EXPECT_EQ(recovery.open[1].crashes, 1);
  EXPECT_EQ(recovery.open[1].progress, (std::vector<TokenId>{5, 6, 7}));
  EXPECT_EQ(recovery.open[2].crashes, 0);
  ASSERT_EQ(recovery.keys.size(), 1u);
  EXPECT_EQ(recovery.keys[0].key, "key-3");
  EXPECT_EQ(recovery.keys[0].job, id_of(3));
  const auto result = fetch(*journal, id_of(3));
  ASSERT_TRUE(result.has_value());
  EXPECT_EQ(result->text, "three");
  EXPECT_FALSE(fetch(*journal, id_of(1)).has_value());
}

TEST_P(Journals, OrdersAreNotReusedAfterResultsAreGone) {
  {
    FakeClock clock;
    Recovery recovery;
    auto journal = Journal::open(options, clock, recovery);
    journal->append(accepted(41));
    Finished end = finished(41, "x");
    end.expires_at_ms = journal->time_ms(clock.now()) + 100;
    wait_durable(*journal, journal->append(end));
    clock.advance(seconds(2));
    ASSERT_TRUE(wait_for([&] { return journal->purged() == 1; }));
  }
  EXPECT_EQ(count("results"), 0);
  Recovery recovery;
  open_journal(options, recovery);
  EXPECT_TRUE(recovery.keys.empty());
  EXPECT_EQ(recovery.next_order, 42u);
}

TEST_P(Journals, TheFirstTerminalRecordStands) {
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  journal->append(accepted(1));
  journal->append(finished(1, "first"));
  journal->append(finished(1, "second"));
  journal->append(finished(2, "never accepted"));
  EXPECT_EQ(fetch(*journal, id_of(1))->text, "first");
  EXPECT_FALSE(fetch(*journal, id_of(2)).has_value());
}

TEST_P(Journals, AResultUnderAnotherLeaseIsFenced) {
  {
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    for (uint64_t order = 1; order <= 4; ++order) journal->append(accepted(order));
    journal->append(Leased{id_of(1), 1, {1, 10}, 1});
    journal->append(Leased{id_of(1), 1, {1, 0}, 1, "its worker was lost"});
    journal->append(Leased{id_of(1), 1, {1, 11}, 2});
    Finished stale = finished(1, "stale");
    stale.token = {1, 10};
    journal->append(stale);
    EXPECT_FALSE(fetch(*journal, id_of(1)).has_value());
    EXPECT_EQ(journal->fenced(), 1u);
    Finished present = finished(1, "present");
    present.token = {1, 11};
    journal->append(present);
    journal->append(stale);  // ended already: ignored, and no fence
    EXPECT_EQ(fetch(*journal, id_of(1))->text, "present");
    EXPECT_EQ(journal->fenced(), 1u);
    journal->append(Leased{id_of(2), 2, {1, 12}, 1});
    Finished cancelled = finished(2, "");  // ended by the scheduler, whoever holds the lease
    cancelled.result.state = protocol::JobState::kCancelled;
    journal->append(cancelled);
    EXPECT_EQ(fetch(*journal, id_of(2))->state, protocol::JobState::kCancelled);
    journal->append(Leased{id_of(3), 3, {1, 13}, 1});
  }
  // A lease of an earlier start does not count.
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  Finished old = finished(3, "old");
  old.token = {1, 13};
  journal->append(old);
  EXPECT_FALSE(fetch(*journal, id_of(3)).has_value());
  EXPECT_EQ(journal->fenced(), 1u);
}

TEST_P(Journals, LossesAreKeptInTheirOrderAndBounded) {
  const std::string umlauts = [] {
    std::string text = "x";
    for (int i = 0; i < 200; ++i) text += "\xc3\xa4";
    return text;
  }();
  {
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    journal->append(accepted(1));
    journal->append(accepted(2));
    journal->append(Leased{id_of(1), 1, {1, 0}, 1, "first"});
    journal->append(Leased{id_of(1), 1, {1, 0}, 1});  // given back: no loss
    journal->append(Leased{id_of(1), 1, {1, 0}, 2, umlauts});
    for (int i = 0; i < 200; ++i) journal->append(Leased{id_of(2), 2, {1, 0}, 1, std::string(256, 'y')});
  }
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  ASSERT_EQ(recovery.open.size(), 2u);
  EXPECT_EQ(recovery.open[0].losses, (std::vector<std::string>{"first", umlauts.substr(0, 255)}));
  EXPECT_LE(recovery.open[1].losses.size(), 20u);
  EXPECT_EQ(recovery.open[0].attempts, 2);
}

TEST_P(Journals, ADeadJobIsKeptAndPutBack) {
  {
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    journal->append(accepted(1, "poison"));
    journal->append(accepted(2));
    Finished dead = finished(1, "", 0);  // its own time to live is over at once
    dead.result.state = protocol::JobState::kDead;
    dead.result.group = "batch";
    journal->append(dead);
    EXPECT_FALSE(ask_for<DeadFound>(*journal, FindDead{id_of(2)}).job.has_value());
    const auto found = ask_for<DeadFound>(*journal, FindDead{id_of(1)});
    ASSERT_TRUE(found.job.has_value());
    EXPECT_EQ(found.order, 1u);
    EXPECT_EQ(found.job->spec, accepted(1, "poison").spec);
    EXPECT_EQ(found.job->accepted_wall_ms, 1'001);
    EXPECT_EQ(found.job->payload_sha256, accepted(1).payload_sha256);
  }
  {
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    ASSERT_EQ(recovery.keys.size(), 1u);
    EXPECT_EQ(recovery.keys[0].state, protocol::JobState::kDead);
    EXPECT_EQ(recovery.keys[0].group, "batch");
    EXPECT_GT(recovery.keys[0].expires_at_ms, 6LL * 24 * 3'600'000);
    Requeued back{1, *ask_for<DeadFound>(*journal, FindDead{id_of(1)}).job};
    back.accepted.order = 3;
    journal->append(back);
    EXPECT_FALSE(fetch(*journal, id_of(1)).has_value());
    back.accepted.order = 4;
    journal->append(back);  // not dead any more
  }
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  ASSERT_EQ(recovery.open.size(), 2u);
  EXPECT_EQ(recovery.open[1].accepted.order, 3u);
  EXPECT_EQ(recovery.open[1].accepted.job, id_of(1));
  EXPECT_EQ(recovery.open[1].accepted.spec, accepted(1, "poison").spec);
  EXPECT_EQ(recovery.open[1].attempts, 0);
  EXPECT_TRUE(recovery.keys.empty());
}

TEST_P(Journals, ModesHoldUntilTheyAreOpened) {
  using protocol::ControlScope;
  using protocol::QueueMode;
  {
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    journal->append(ModeSet{ControlScope::kQueue, "", QueueMode::kPaused});
    journal->append(ModeSet{ControlScope::kModel, "opt", QueueMode::kPaused});
    journal->append(ModeSet{ControlScope::kModel, "opt", QueueMode::kDraining});
    journal->append(ModeSet{ControlScope::kQueue, "", QueueMode::kOpen});
  }
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  ASSERT_EQ(recovery.modes.size(), 1u);
  EXPECT_EQ(recovery.modes[0].scope, ControlScope::kModel);
  EXPECT_EQ(recovery.modes[0].name, "opt");
  EXPECT_EQ(recovery.modes[0].mode, QueueMode::kDraining);
}

// Locks keep a second scheduler out; if they do not work, the term in the file does.
TEST(Journal, ATermThatWasRaisedByAnotherStopsThisOne) {
  TempFolder folder;
  Recovery recovery;
  JournalDatabase database({.path = folder.file("journal.db")}, Instant{}, recovery);
  database.commit(std::vector<Record>{accepted(1)}, Instant{});
  database.connection().execute("UPDATE meta SET term = term + 1");
  EXPECT_THAT(error_of([&] { database.commit(std::vector<Record>{accepted(2)}, Instant{}); }),
              ::testing::HasSubstr("another scheduler took over this journal (our term is 1, the file has 2)"));
  EXPECT_EQ(database.connection().query_number("SELECT count(*) FROM jobs"), 1);
}

TEST_P(Journals, ResultsExpireAndArePurged) {
  {
    FakeClock clock;
    Recovery recovery;
    auto journal = Journal::open(options, clock, recovery);
    const auto append = [&](uint64_t order, const std::string& text, int64_t ttl_ms) {
      journal->append(accepted(order));
      Finished end = finished(order, text);
      end.expires_at_ms = journal->time_ms(clock.now()) + ttl_ms;
      journal->append(end);
    };
    for (uint64_t order = 1; order <= 300; ++order) append(order, "soon gone", 100);
    append(301, "stays", 60'000);
    EXPECT_EQ(fetch(*journal, id_of(301))->text, "stays");
    EXPECT_TRUE(fetch(*journal, id_of(1)).has_value());
    clock.advance(milliseconds(150));
    EXPECT_FALSE(fetch(*journal, id_of(1)).has_value());
    clock.advance(seconds(1));
    EXPECT_TRUE(wait_for([&] { return journal->purged() == 300; })) << journal->purged();
  }
  EXPECT_EQ(count("results"), 1);
}

TEST_P(Journals, EventFdTellsOfCommits) {
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  EXPECT_EQ(journal->durable(), 0u);
  journal->append(accepted(1));
  pollfd waiting{journal->event_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&waiting, 1, 5'000), 1);
  EXPECT_TRUE(wait_durable(*journal, 1));
}

TEST_P(Journals, GroupCommitKeepsUpAndReportsItsRate) {
  Recovery recovery;
  auto journal = open_journal(options, recovery);
  constexpr uint64_t kJobs = 5'000;
  const auto start = std::chrono::steady_clock::now();
  for (uint64_t order = 1; order <= kJobs; ++order) journal->append(accepted(order, std::string(256, 'x')));
  ASSERT_TRUE(wait_durable(*journal, kJobs));
  const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  RecordProperty("durable_records_per_second", static_cast<int>(kJobs / elapsed));
  EXPECT_GT(kJobs / elapsed, 500.0);  // one sync for each record would already be near this on a slow disk
}

TEST_P(Journals, IsCongestedWhileTooMuchWaits) {
  Recovery recovery;
  options.queue_records_max = 10;
  auto journal = open_journal(options, recovery);
  bool seen = false;
  for (uint64_t order = 1; order <= 3'000; ++order) {
    journal->append(accepted(order));
    seen = seen || journal->is_congested();
  }
  EXPECT_TRUE(seen);
  ASSERT_TRUE(wait_durable(*journal, 3'000));
  EXPECT_FALSE(journal->is_congested());
}

TEST(Journal, ASecondOwnerIsRefused) {
  TempFolder folder;
  const std::string path = folder.file("journal.db");
  Recovery recovery;
  auto journal = open_journal({.path = path}, recovery);
  EXPECT_THAT(open_error({.path = path}),
              ::testing::HasSubstr("held by another process (pid " + std::to_string(::getpid())));
  journal.reset();
  EXPECT_EQ(open_error({.path = path}), "");
}

// Records of all kinds, in any order in which a scheduler may write them, many in a commit, over many starts.
TEST_P(Journals, RandomHistoriesEndAsTheModelSays) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  History history(random);
  Model model;
  FakeClock clock;
  for (int start = 0; start < 12; ++start) {
    Recovery recovery;
    auto journal = Journal::open(options, clock, recovery);
    model.restart();
    const auto find_result = [&](const JobId& job) { return ask_for<ResultFound>(*journal, FindResult{job}); };
    const auto find_dead = [&](const JobId& job) { return ask_for<DeadFound>(*journal, FindDead{job}); };
    ASSERT_EQ(difference(model, recovery, find_result, find_dead), "");
    for (int batch = 0; batch < 25; ++batch) {
      for (const Record& record : history.batch(model, recovery.term)) {
        journal->append(record);
        model.apply(record);
      }
    }
    if (start % 4 == 3) {
      PurgeEnded purge;
      purge.filter.state = protocol::JobState::kFailed;
      ask_for<EndedPurged>(*journal, purge);
      model.purge(protocol::JobState::kFailed);
    }
  }
}

// What a child process reported as durable before it was killed at a random moment is there afterwards.
TEST_P(Journals, KilledAtRandomMomentsLosesNothingDurable) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::set<uint64_t> promised;
  for (int round = 0; round < (is_sqlite() ? 12 : 6); ++round) {
    int pipe_ends[2];
    ASSERT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      Recovery recovery;
      auto journal = open_journal(options, recovery);
      uint64_t reported = 0;
      for (uint64_t order = recovery.next_order, appended = 0; order < recovery.next_order + 100'000; ++order) {
        journal->append(accepted(order));
        ++appended;
        if (appended % 7 == 0) std::this_thread::sleep_for(microseconds(200));
        for (const uint64_t durable = journal->durable(); reported < durable; ++reported) {
          const uint64_t safe = recovery.next_order + reported;
          if (::write(pipe_ends[1], &safe, sizeof safe) != sizeof safe) ::_exit(1);
        }
      }
      ::_exit(0);
    }
    ::close(pipe_ends[1]);
    uint64_t order = 0;  // the first promise: the child is at work
    if (::read(pipe_ends[0], &order, sizeof order) == sizeof order) promised.insert(order);
    std::this_thread::sleep_for(milliseconds(random() % 80));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    while (::read(pipe_ends[0], &order, sizeof order) == sizeof order) promised.insert(order);
    ::close(pipe_ends[0]);
  }
  Recovery recovery;
  open_journal(options, recovery);
  std::set<uint64_t> present;
  for (const OpenJob& job : recovery.open) present.insert(job.accepted.order);
  EXPECT_GT(promised.size(), 0u);
  for (const uint64_t order : promised) EXPECT_TRUE(present.count(order)) << "order " << order;
  EXPECT_EQ(present.size(), recovery.open.size());
}

}  // namespace journal_test
}  // namespace optserve::journal
