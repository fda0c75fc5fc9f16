#include "journal/journal.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <thread>

#include "base/clock.h"
#include "journal/crc32c.h"
#include "journal/sqlite.h"

namespace optserve::journal {
namespace {

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "optserve-journal-XXXXXX").string();
    check(::mkdtemp(name.data()) != nullptr, "mkdtemp");
    path_ = name;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  std::string file(const char* name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

JobId id_of(uint64_t number) {
  JobId id;
  std::memcpy(id.bytes.data(), &number, sizeof number);
  return id;
}

Accepted accepted(uint64_t order, const std::string& prompt = "once") {
  Accepted record;
  record.job = id_of(order);
  record.order = order;
  record.accepted_wall_ms = 1'000 + static_cast<int64_t>(order);
  record.payload_sha256 = std::string(32, static_cast<char>(order));
  record.spec.key = "key-" + std::to_string(order);
  record.spec.tenant = "tenant";
  record.spec.model = "opt";
  record.spec.prompt = prompt;
  return record;
}

Finished finished(uint64_t order, const std::string& text, int64_t ttl_ms = 60'000) {
  Finished record;
  record.order = order;
  record.expires_wall_ms = SystemClock().wall_ms() + ttl_ms;
  record.tenant = "tenant";
  record.payload_sha256 = std::string(32, static_cast<char>(order));
  record.result.job = id_of(order);
  record.result.key = "key-" + std::to_string(order);
  record.result.state = protocol::JobState::kSucceeded;
  record.result.text = text;
  return record;
}

bool wait_durable(const JobStore& store, uint64_t sequence) {
  for (int i = 0; i < 5'000; ++i) {
    if (store.durable() >= sequence) return true;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return false;
}

std::optional<protocol::JobResult> fetch(Journal& journal, const JobId& job) {
  static uint64_t request = 0;
  journal.ask(++request, FindResult{job});
  for (int i = 0; i < 1'000; ++i) {
    pollfd waiting{journal.answers_fd(), POLLIN, 0};
    ::poll(&waiting, 1, 10);
    for (auto& answer : journal.poll_answers()) {
      EXPECT_EQ(answer.request, request);
      const auto& found = std::get<ResultFound>(answer.body);
      EXPECT_EQ(found.job, job);
      return found.result;
    }
  }
  ADD_FAILURE() << "no answer";
  return std::nullopt;
}

// The text of the Error that opening throws; empty if it does not.
std::string open_error(const std::string& path) {
  try {
    Recovery recovery;
    Journal::open({.path = path}, recovery);
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Crc32c, MatchesTheStandardCheckValue) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
  EXPECT_EQ(crc32c("6789", crc32c("12345")), 0xE3069283u);
}

TEST(Journal, RecoversJobsLeasesProgressAndKeys) {
  TempFolder folder;
  const JournalOptions options{.path = folder.file("journal.db")};
  {
    Recovery recovery;
    auto journal = Journal::open(options, recovery);
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
  auto journal = Journal::open(options, recovery);
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

TEST(Journal, OrdersAreNotReusedAfterResultsAreGone) {
  TempFolder folder;
  const JournalOptions options{.path = folder.file("journal.db")};
  {
    Recovery recovery;
    auto journal = Journal::open(options, recovery);
    journal->append(accepted(41));
    ASSERT_TRUE(wait_durable(*journal, journal->append(finished(41, "x", 0))));
    std::this_thread::sleep_for(milliseconds(1'200));
  }
  Recovery recovery;
  Journal::open(options, recovery);
  EXPECT_TRUE(recovery.keys.empty());
  EXPECT_EQ(recovery.next_order, 42u);
}

TEST(Journal, TheFirstTerminalRecordStands) {
  TempFolder folder;
  Recovery recovery;
  auto journal = Journal::open({.path = folder.file("journal.db")}, recovery);
  journal->append(accepted(1));
  journal->append(finished(1, "first"));
  journal->append(finished(1, "second"));
  journal->append(finished(2, "never accepted"));
  EXPECT_EQ(fetch(*journal, id_of(1))->text, "first");
  EXPECT_FALSE(fetch(*journal, id_of(2)).has_value());
}

TEST(Journal, ResultsExpireAndArePurged) {
  TempFolder folder;
  const std::string path = folder.file("journal.db");
  {
    Recovery recovery;
    auto journal = Journal::open({.path = path}, recovery);
    for (uint64_t order = 1; order <= 300; ++order) {
      journal->append(accepted(order));
      journal->append(finished(order, "soon gone", 100));
    }
    journal->append(accepted(301));
    journal->append(finished(301, "stays"));
    EXPECT_EQ(fetch(*journal, id_of(301))->text, "stays");
    std::this_thread::sleep_for(milliseconds(150));
    EXPECT_FALSE(fetch(*journal, id_of(1)).has_value());
    std::this_thread::sleep_for(milliseconds(1'500));
  }
  Database database(path);
  EXPECT_EQ(database.query_number("SELECT count(*) FROM results"), 1);
}

TEST(Journal, EventFdTellsOfCommits) {
  TempFolder folder;
  Recovery recovery;
  auto journal = Journal::open({.path = folder.file("journal.db")}, recovery);
  EXPECT_EQ(journal->durable(), 0u);
  journal->append(accepted(1));
  pollfd waiting{journal->event_fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&waiting, 1, 5'000), 1);
  EXPECT_TRUE(wait_durable(*journal, 1));
}

TEST(Journal, GroupCommitKeepsUpAndReportsItsRate) {
  TempFolder folder;
  Recovery recovery;
  auto journal = Journal::open({.path = folder.file("journal.db")}, recovery);
  constexpr uint64_t kJobs = 5'000;
  const auto start = std::chrono::steady_clock::now();
  for (uint64_t order = 1; order <= kJobs; ++order) journal->append(accepted(order, std::string(256, 'x')));
  ASSERT_TRUE(wait_durable(*journal, kJobs));
  const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  RecordProperty("durable_records_per_second", static_cast<int>(kJobs / elapsed));
  EXPECT_GT(kJobs / elapsed, 500.0);  // one sync for each record would already be near this on a slow disk
}

TEST(Journal, IsCongestedWhileTooMuchWaits) {
  TempFolder folder;
  Recovery recovery;
  auto journal = Journal::open({.path = folder.file("journal.db"), .queue_records_max = 10}, recovery);
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
  auto journal = Journal::open({.path = path}, recovery);
  EXPECT_THAT(open_error(path), ::testing::HasSubstr("held by another process (pid " + std::to_string(::getpid())));
  journal.reset();
  EXPECT_EQ(open_error(path), "");
}

TEST(Journal, RefusesWhatIsNotAJournal) {
  TempFolder folder;
  const std::string garbage = folder.file("garbage");
  std::ofstream(garbage) << "this is a text file, longer than sixteen bytes";
  EXPECT_THAT(open_error(garbage), ::testing::HasSubstr("not a database"));

  const std::string foreign = folder.file("foreign");
  Database(foreign).execute("CREATE TABLE t(x)");
  ::chmod(foreign.c_str(), 0600);
  EXPECT_THAT(open_error(foreign), ::testing::HasSubstr("another application"));

  const std::string newer = folder.file("newer");
  EXPECT_EQ(open_error(newer), "");
  Database(newer).execute("PRAGMA user_version = 9");
  EXPECT_THAT(open_error(newer), ::testing::HasSubstr("schema version 9, this build reads version 1"));

  const std::string link = folder.file("link");
  std::filesystem::create_symlink(newer, link);
  EXPECT_THAT(open_error(link), ::testing::HasSubstr("expected a regular file"));

  const std::string shared = folder.file("shared");
  EXPECT_EQ(open_error(shared), "");
  ::chmod(shared.c_str(), 0666);
  EXPECT_THAT(open_error(shared), ::testing::HasSubstr("other users may write"));

  EXPECT_THAT(open_error(folder.file("no/such/folder/journal")), ::testing::HasSubstr("No such file or directory"));
}

// Any flipped bit of a payload is either found or harmless (it hit a free page): never a different job.
TEST(Journal, DamageIsFoundOrHarmless) {
  TempFolder folder;
  const std::string path = folder.file("journal.db");
  {
    Recovery recovery;
    auto journal = Journal::open({.path = path}, recovery);
    for (uint64_t order = 1; order <= 40; ++order) journal->append(accepted(order, std::string(400, 'p')));
  }
  std::ifstream source(path, std::ios::binary);
  const std::string good((std::istreambuf_iterator<char>(source)), std::istreambuf_iterator<char>());
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  int found = 0;
  for (int round = 0; round < 60; ++round) {
    std::string bad = good;
    bad[random() % bad.size()] ^= static_cast<char>(1u << (random() % 8));
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bad;
    try {
      Recovery recovery;
      Journal::open({.path = path}, recovery);
      for (const OpenJob& job : recovery.open) {
        EXPECT_EQ(job.accepted.spec, accepted(job.accepted.order, std::string(400, 'p')).spec);
      }
    } catch (const Error&) {
      ++found;
    }
  }
  EXPECT_GT(found, 0);
}

TEST(Journal, AFullDiskIsReportedWithWhatToDo) {
  TempFolder folder;
  Recovery recovery;
  auto journal = Journal::open({.path = folder.file("journal.db"), .database_bytes_max = 256 << 10}, recovery);
  std::string message;
  try {
    for (uint64_t order = 1; order <= 100'000; ++order) {
      const uint64_t sequence = journal->append(accepted(order, std::string(4'000, 'x')));
      if (order % 50 == 0 && !wait_durable(*journal, sequence)) break;
    }
  } catch (const Error& error) {
    message = error.what();
  }
  EXPECT_THAT(message, ::testing::HasSubstr("free space"));
  EXPECT_THROW(journal->append(accepted(1)), Error);
  EXPECT_THROW(journal->durable(), Error);
}

// What a child process reported as durable before it was killed at a random moment is there afterwards.
TEST(Journal, KilledAtRandomMomentsLosesNothingDurable) {
  TempFolder folder;
  const std::string path = folder.file("journal.db");
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  std::set<uint64_t> promised;
  for (int round = 0; round < 12; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      Recovery recovery;
      auto journal = Journal::open({.path = path}, recovery);
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
    std::this_thread::sleep_for(milliseconds(20 + random() % 120));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    for (uint64_t order = 0; ::read(pipe_ends[0], &order, sizeof order) == sizeof order;) promised.insert(order);
    ::close(pipe_ends[0]);
  }
  Recovery recovery;
  Journal::open({.path = path}, recovery);
  std::set<uint64_t> present;
  for (const OpenJob& job : recovery.open) present.insert(job.accepted.order);
  EXPECT_GT(promised.size(), 0u);
  for (const uint64_t order : promised) EXPECT_TRUE(present.count(order)) << "order " << order;
  EXPECT_EQ(present.size(), recovery.open.size());
}

TEST(MemoryStore, IsBounded) {
  MemoryStore store(2);
  for (uint64_t order = 1; order <= 3; ++order) store.append(finished(order, "text"));
  for (uint64_t order = 1; order <= 3; ++order) store.ask(order, FindResult{id_of(order)});
  const auto answers = store.poll_answers();
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_FALSE(std::get<ResultFound>(answers[0].body).result.has_value());
  EXPECT_TRUE(std::get<ResultFound>(answers[2].body).result.has_value());
  EXPECT_TRUE(store.poll_answers().empty());
}

}  // namespace
}  // namespace optserve::journal
