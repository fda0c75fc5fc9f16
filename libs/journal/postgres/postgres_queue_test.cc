// What is special about a journal in PostgreSQL: who leads, and what a broken connection, a dead server and a promoted
// replica leave behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>

#include <future>
#include <random>
#include <set>

#include "base/program.h"
#include "journal/journal_test_support.h"
#include "journal/postgres/postgres_test_proxy.h"
#include "journal/postgres/postgres_test_server.h"
#include "journal/postgres/schema.h"

namespace optserve::journal {
namespace postgres_queue_test {

using namespace testing;  // NOLINT: the tests' own
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Clock = std::chrono::steady_clock;

JournalOptions options_of(const std::string& url, const std::string& queue) {
  JournalOptions options{.path = url};
  options.queue = queue;
  options.holder = "tcp://leader:5555";
  return options;
}
JournalOptions standby_of(const std::string& url, const std::string& queue) {
  JournalOptions options = options_of(url, queue);
  options.stand_by = [](const std::string&) { return true; };
  return options;
}
std::set<uint64_t> open_orders(const Recovery& recovery) {
  std::set<uint64_t> orders;
  for (const OpenJob& job : recovery.open) orders.insert(job.accepted.order);
  return orders;
}
std::string failure_of(Journal& journal) {
  std::string failure;
  wait_for([&] {
    failure = error_of([&] { journal.durable(); });
    return !failure.empty();
  });
  return failure;
}

TEST(PostgresUrl, APasswordIsRefusedAndNeverShown) {
  for (const std::string url : {"postgresql://user:S3cret@host/db", "postgresql://host/db?user=u&password=S3cret",
                                "postgres://host/db?sslpassword=S3cret", "postgresql://user:S3cret@x@host:bad/db",
                                "postgresql://user:S3cret@host:70000x/db", "postgresql://h/db?nonsense=S3cret"}) {
    const std::string error = error_of([&] { check_journal_url(url); });
    EXPECT_NE(error, "") << url;
    EXPECT_THAT(error, Not(HasSubstr("S3cret")));
    EXPECT_THAT(open_error(options_of(url, "q")), AllOf(Not(HasSubstr("S3cret")), Not(::testing::IsEmpty())));
  }
  EXPECT_EQ(error_of([] { check_journal_url("postgresql://user@a:1,b:2/db?sslmode=verify-full"); }), "");
  for (const std::string queue : {"", "Upper", "a-b", "1a", "pg_x", "a\"b", "a;b"}) {
    EXPECT_THAT(open_error(options_of("postgresql://h/db", queue)), HasSubstr("cannot be a schema")) << queue;
  }
}

TEST(PostgresQueue, IsMadeOnceAndItsVersionIsChecked) {
  TestServer& server = shared_server();
  EXPECT_THAT(open_error(options_of(server.url(), "nothing")), HasSubstr("optserve journal init URL --queue nothing"));
  init_queue(server.url(), "made", {});
  EXPECT_THAT(error_of([&] { init_queue(server.url(), "made", {}); }), HasSubstr("is there already"));
  EXPECT_FALSE(upgrade_queue(server.url(), "made"));
  EXPECT_EQ(open_error(options_of(server.url(), "made")), "");

  Connection connection(server.url(), "made", seconds(5));
  connection.query("CREATE SCHEMA foreigner");
  connection.query("CREATE TABLE foreigner.things(a integer)");
  for (const auto& action :
       {std::function<void()>([&] { init_queue(server.url(), "foreigner", {}); }), std::function<void()>([&] {
          open_journal(options_of(server.url(), "foreigner"), *std::make_unique<Recovery>());
        })}) {
    EXPECT_THAT(error_of(action), HasSubstr("holds tables of something else"));
  }
  // A later program adds a step.
  std::vector<SchemaStep> later(schema_steps().begin(), schema_steps().end());
  later.push_back({{"ALTER TABLE jobs ADD COLUMN later bigint NOT NULL DEFAULT 0"}});
  raise_schema(connection, "made", 1, later);
  EXPECT_THAT(open_error(options_of(server.url(), "made")), HasSubstr("made by a later program"));
  connection.query("UPDATE meta SET version = 0");
  EXPECT_THAT(open_error(options_of(server.url(), "made")), HasSubstr("no queue"));
  // A step that fails changes nothing.
  later.push_back({{"CREATE TABLE half(a integer)", "SELECT 1 / 0"}});
  connection.query("UPDATE meta SET version = 2");
  EXPECT_NE(error_of([&] { raise_schema(connection, "made", 2, later); }), "");
  EXPECT_EQ(connection.query("SELECT version FROM meta").number(0, 0), 2);
  EXPECT_EQ(connection.query("SELECT to_regclass('half') IS NULL").number(0, 0), 1);
}

TEST(PostgresQueue, SeveralInOneDatabaseKnowNothingOfEachOther) {
  TestServer& server = shared_server();
  const std::string red = fresh_queue(server), blue = fresh_queue(server);
  Recovery of_red, of_blue;
  auto first = open_journal(options_of(server.url(), red), of_red);
  auto second = open_journal(options_of(server.url(), blue), of_blue);
  wait_durable(*first, first->append(accepted(1)));
  wait_durable(*second, second->append(accepted(2)));
  EXPECT_EQ(inspect_queue(server.url(), red).open, 1);
  EXPECT_EQ(inspect_queue(server.url(), red).holder, "tcp://leader:5555");
  EXPECT_THAT(open_error(options_of(server.url(), red)),
              HasSubstr("another scheduler (tcp://leader:5555) leads the queue '" + red + "' with term 1"));
  second.reset();
  second = open_journal(options_of(server.url(), blue), of_blue);
  EXPECT_EQ(open_orders(of_blue), std::set<uint64_t>{2});
  EXPECT_EQ(std::get<Refusal>(ask(*second, BackUp{})).code, ErrorCode::kUnavailable);
}

TEST(PostgresQueue, ARoleWithTheLeastPrivilegesSuffices) {
  TestServer& server = shared_server();
  const std::string queue = fresh_queue(server), other = fresh_queue(server);
  Connection owner(server.url(), queue, seconds(5));
  owner.query("CREATE ROLE \"Plain role\" LOGIN");
  init_queue(server.url(), queue, {"Plain role"});
  const std::string url = "postgresql:///postgres?user=Plain%20role&host=" + server.socket_folder();
  {
    Recovery recovery;
    auto journal = open_journal(options_of(url, queue), recovery);
    for (uint64_t order = 1; order <= 3; ++order) journal->append(accepted(order));
    journal->append(Leased{id_of(1), 1, {1, 1}, 1});
    journal->append(Progress{id_of(1), 1, {1, 2}});
    journal->append(finished(2, "two"));
    journal->append(ModeSet{protocol::ControlScope::kQueue, "", protocol::QueueMode::kPaused});
    EXPECT_EQ(fetch(*journal, id_of(2))->text, "two");
    EXPECT_EQ(ask_for<EndedPurged>(*journal, PurgeEnded{}).forgotten.size(), 1u);
  }
  Recovery recovery;
  EXPECT_EQ(error_of([&] { open_journal(standby_of(url, queue), recovery); }), "");
  EXPECT_EQ(recovery.open.size(), 2u);
  Connection plain(url, queue, seconds(5));
  for (const char* forbidden : {"DROP TABLE jobs", "CREATE TABLE mine(a integer)",
                                "ALTER TABLE meta ADD COLUMN x bigint", "DELETE FROM meta", "TRUNCATE results"}) {
    EXPECT_NE(error_of([&] { plain.query(forbidden); }), "") << forbidden;
  }
  EXPECT_THAT(open_error(options_of(url, other)), HasSubstr("permission denied"));
}

// A process that leads and appends, and reports on a pipe what is durable or why it ended.
class Leader {
 public:
  Leader(const std::string& url, const std::string& queue) {
    int ends[2];
    check(::pipe(ends) == 0, "pipe");
    pid_ = ::fork();
    if (pid_ == 0) run(url, queue, ends[1]);
    ::close(ends[1]);
    from_ = ends[0];
    read_line();
  }
  ~Leader() {
    kill(SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    ::close(from_);
  }
  void kill(int signal) const { ::kill(pid_, signal); }
  // "durable N" or its error; "" at its end.
  std::string read_line() const {
    std::string line;
    for (char byte; ::read(from_, &byte, 1) == 1;) {
      if (byte == '\n') return line;
      line += byte;
    }
    return line;
  }

 private:
  [[noreturn]] static void run(const std::string& url, const std::string& queue, int to) {
    const auto say = [to](const std::string& line) {
      const std::string whole = line + "\n";
      if (::write(to, whole.data(), whole.size()) != static_cast<ssize_t>(whole.size())) ::_exit(3);
    };
    try {
      Recovery recovery;
      auto journal = open_journal(options_of(url, queue), recovery);
      for (uint64_t order = recovery.next_order;; ++order) {
        const uint64_t number = journal->append(accepted(order));
        journal->append(Leased{id_of(order), order, {recovery.term, order}, 1});
        while (journal->durable() < number) std::this_thread::sleep_for(milliseconds(1));
        say("durable " + std::to_string(order));
      }
    } catch (const std::exception& error) {
      say(error.what());
    }
    ::_exit(0);
  }
  pid_t pid_ = 0;
  int from_ = -1;
};

TEST(PostgresStandby, TakesOverFromADeadLeader) {
  TestServer& server = shared_server();
  const std::string queue = fresh_queue(server);
  Leader leader(server.url(), queue);
  Recovery recovery;
  auto standby =
      std::async(std::launch::async, [&] { return open_journal(standby_of(server.url(), queue), recovery); });
  EXPECT_EQ(standby.wait_for(milliseconds(3'500)), std::future_status::timeout);  // it lives: nobody takes over
  const auto killed = Clock::now();
  leader.kill(SIGKILL);
  auto journal = standby.get();
  EXPECT_LT(Clock::now() - killed, seconds(5));
  EXPECT_EQ(recovery.term, 2u);
  uint64_t last = 0;
  for (std::string line = leader.read_line(); line.starts_with("durable "); line = leader.read_line()) {
    last = std::stoull(line.substr(8));
  }
  const std::set<uint64_t> open = open_orders(recovery);
  for (uint64_t order = 1; order <= last; ++order) EXPECT_TRUE(open.contains(order)) << order;
  EXPECT_EQ(recovery.open.at(0).crashes, 1);
  wait_durable(*journal, journal->append(accepted(recovery.next_order)));
}

TEST(PostgresStandby, TakesOverFromAPausedLeaderWhichThenDoesNoHarm) {
  TestServer& server = shared_server();
  for (int round = 0; round < 3; ++round) {
    const std::string queue = fresh_queue(server);
    Leader leader(server.url(), queue);
    Recovery recovery;
    auto standby =
        std::async(std::launch::async, [&] { return open_journal(standby_of(server.url(), queue), recovery); });
    std::this_thread::sleep_for(milliseconds(200 + 37 * round));
    leader.kill(SIGSTOP);
    const auto paused = Clock::now();
    auto journal = standby.get();
    EXPECT_LT(Clock::now() - paused, seconds(5));
    const std::set<uint64_t> before = open_orders(recovery);
    wait_durable(*journal, journal->append(accepted(1'000'000)));
    leader.kill(SIGCONT);
    std::string line = leader.read_line();
    uint64_t last = 0;
    for (; line.starts_with("durable "); line = leader.read_line()) last = std::stoull(line.substr(8));
    EXPECT_THAT(line, HasSubstr("another scheduler"));
    // Everything that it reported as durable was so before the other began, and nothing of it came afterwards.
    for (uint64_t order = 1; order <= last; ++order) EXPECT_TRUE(before.contains(order)) << order;
    EXPECT_EQ(inspect_queue(server.url(), queue).open, static_cast<int64_t>(before.size()) + 1);
    EXPECT_EQ(recovery.open.at(0).crashes, 0);  // a pause is not a crash
    journal->append(accepted(1'000'001));
    EXPECT_TRUE(wait_durable(*journal, 2));
  }
}

// Sessions and locks keep a second leader out; if they do not work, the term in the database does.
TEST(PostgresStandby, ATermThatWasRaisedByAnotherStopsThisOne) {
  TestServer& server = shared_server();
  const std::string queue = fresh_queue(server);
  Recovery recovery;
  auto journal = open_journal(options_of(server.url(), queue), recovery);
  wait_durable(*journal, journal->append(accepted(1)));
  Connection(server.url(), queue, seconds(5)).query("UPDATE meta SET term = term + 1");
  journal->append(accepted(2));
  EXPECT_THAT(failure_of(*journal),
              HasSubstr("another scheduler took over this journal (our term is 1, the database has 2)"));
  EXPECT_EQ(inspect_queue(server.url(), queue).open, 1);
}

TEST(PostgresStandby, TakesOverFromALeaderThatIsCutOff) {
  TestServer& server = shared_server();
  TestProxy proxy(server.socket());
  const std::string queue = fresh_queue(server);
  Recovery of_leader, of_standby;
  auto leader = open_journal(options_of(proxy.url(), queue), of_leader);
  wait_durable(*leader, leader->append(accepted(1)));
  proxy.hold(true);
  const auto cut = Clock::now();
  leader->append(accepted(2));
  auto standby = open_journal(standby_of(server.url(), queue), of_standby);
  EXPECT_LT(Clock::now() - cut, seconds(5));
  EXPECT_TRUE(wait_durable(*standby, standby->append(accepted(3))));
  // When the network comes back, records that the old leader still holds are not accepted.
  proxy.hold(false);
  EXPECT_NE(failure_of(*leader), "");
  EXPECT_NE(error_of([&] { leader->append(accepted(4)); }), "");
  const JournalSummary summary = inspect_queue(server.url(), queue);
  EXPECT_EQ(summary.term, 2u);
  EXPECT_EQ(summary.open, static_cast<int64_t>(of_standby.open.size()) + 1);
}

TEST(PostgresStandby, IsHandedTheQueueAtOnce) {
  TestServer& server = shared_server();
  const std::string queue = fresh_queue(server);
  EXPECT_THAT(error_of([&] { hand_over_queue(server.url(), queue, seconds(1)); }), HasSubstr("no scheduler leads"));
  Recovery of_leader, of_standby;
  auto leader = open_journal(options_of(server.url(), queue), of_leader);
  leader->append(accepted(1));
  auto standby =
      std::async(std::launch::async, [&] { return open_journal(standby_of(server.url(), queue), of_standby); });
  std::this_thread::sleep_for(milliseconds(300));
  auto asked = std::async(std::launch::async, [&] { return hand_over_queue(server.url(), queue, seconds(5)); });
  pollfd waiting{leader->hand_over_fd(), POLLIN, 0};
  ASSERT_EQ(::poll(&waiting, 1, 5'000), 1);
  const auto left = Clock::now();
  leader.reset();
  auto journal = standby.get();
  EXPECT_LT(Clock::now() - left, seconds(2));  // milliseconds where nothing else runs
  EXPECT_TRUE(asked.get());
  EXPECT_EQ(open_orders(of_standby), std::set<uint64_t>{1});
}

// Each record takes effect once, wherever the connection breaks: before, during or after the commit.
TEST(PostgresOutcome, IsKnownWhereverAConnectionBreaks) {
  TestServer& server = shared_server();
  TestProxy proxy(server.socket());
  const std::string queue = fresh_queue(server);
  const unsigned seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  constexpr uint64_t kRounds = 60;
  uint64_t jobs = 0;
  {
    Recovery recovery;
    auto journal = open_journal(standby_of(proxy.url(), queue), recovery);
    for (uint64_t round = 0; round < kRounds; ++round) {
      // Either direction is cut, so that a request or an answer does not arrive.
      const bool answers = random() % 2 == 0;
      proxy.cut_after(answers ? 1 << 30 : random() % 1'500, answers ? random() % 400 : 1 << 30);
      uint64_t number = 0;
      for (uint64_t n = 1 + random() % 5; n > 0; --n) {
        journal->append(accepted(++jobs));
        number = journal->append(Leased{id_of(jobs), jobs, {recovery.term, 0}, 1, "lost " + std::to_string(jobs)});
      }
      ASSERT_TRUE(wait_durable(*journal, number)) << "round " << round;
    }
    EXPECT_GE(proxy.cuts(), kRounds / 2);
  }
  Recovery recovery;
  auto journal = open_journal(standby_of(server.url(), queue), recovery);
  EXPECT_EQ(recovery.term, 2u);
  ASSERT_EQ(recovery.open.size(), jobs);
  for (const OpenJob& job : recovery.open) {
    EXPECT_EQ(job.losses, std::vector<std::string>{"lost " + std::to_string(job.accepted.order)});
  }
}

TEST(PostgresOutcome, OfAServerThatIsKilledAndStartsAgain) {
  TestServer server;
  init_queue(server.url(), "queue", {});
  uint64_t jobs = 0, number = 0;
  {
    JournalOptions options = standby_of(server.url(), "queue");
    options.outage_max = seconds(30);
    Recovery recovery;
    auto journal = open_journal(options, recovery);
    for (int round = 0; round < 3; ++round) {
      std::thread killer([&] {
        std::this_thread::sleep_for(milliseconds(20));
        server.stop(SIGKILL);
      });
      for (int i = 0; i < 500; ++i) {
        journal->append(accepted(++jobs));
        number = journal->append(Leased{id_of(jobs), jobs, {recovery.term, 0}, 1, "lost " + std::to_string(jobs)});
        if (i % 50 == 0) std::this_thread::sleep_for(milliseconds(4));
      }
      killer.join();
      EXPECT_TRUE(wait_for([&] { return journal->is_congested(); }));  // no new jobs meanwhile
      server.start();
      ASSERT_TRUE(wait_durable(*journal, number));
      EXPECT_FALSE(journal->is_congested());
    }
  }
  const JournalSummary summary = inspect_queue(server.url(), "queue");
  EXPECT_EQ(summary.open, static_cast<int64_t>(jobs));
  EXPECT_EQ(summary.term, 1u);
  Recovery recovery;
  open_journal(standby_of(server.url(), "queue"), recovery);
  for (const OpenJob& job : recovery.open) EXPECT_EQ(job.losses.size(), 1u);
}

TEST(PostgresOutcome, APromotedReplicaThatMissedCommitsIsNamed) {
  auto primary = std::make_unique<TestServer>();
  init_queue(primary->url(), "queue", {});
  Recovery recovery;
  auto journal = open_journal(options_of(primary->url(), "queue"), recovery);
  wait_durable(*journal, journal->append(accepted(1)));
  journal.reset();
  TestServer replica(*primary);
  const std::string both = "postgresql:///postgres?user=optserve&host=" + primary->socket_folder() + "," +
                           replica.socket_folder() + "&port=5432,5432";
  JournalOptions options = standby_of(both, "queue");
  options.outage_max = seconds(30);
  recovery = {};
  journal = open_journal(options, recovery);
  EXPECT_EQ(recovery.term, 2u);
  wait_durable(*journal, journal->append(accepted(2)));
  primary->stop(SIGKILL);
  replica.start();
  replica.promote();
  EXPECT_THAT(failure_of(*journal), HasSubstr("a replica was promoted that had not received it"));
  journal.reset();
  recovery = {};
  journal = open_journal(options, recovery);
  EXPECT_EQ(open_orders(recovery), std::set<uint64_t>{1});
  EXPECT_GT(recovery.term, 1'000'000u);  // above those that the lost commits may have used
  EXPECT_TRUE(wait_durable(*journal, journal->append(accepted(3))));
  journal.reset();  // before its server
}

TEST(PostgresOutcome, OfAFullDiskIsThatRecordsWait) {
  TestServer& server = shared_server();
  const std::string queue = fresh_queue(server);
  Recovery recovery;
  auto journal = open_journal(options_of(server.url(), queue), recovery);
  Connection owner(server.url(), queue, seconds(5));
  owner.query(
      "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS "
      "$$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$");
  owner.query("CREATE TRIGGER full_disk BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION no_room()");
  const uint64_t number = journal->append(accepted(1));
  ASSERT_TRUE(wait_for([&] { return journal->is_full(); }));
  EXPECT_EQ(std::get<Refusal>(ask(*journal, FindResult{id_of(1)})).code, ErrorCode::kStorageFull);
  EXPECT_EQ(journal->durable(), 0u);
  owner.query("DROP TRIGGER full_disk ON jobs");
  EXPECT_TRUE(wait_durable(*journal, number));
  EXPECT_FALSE(journal->is_full());
}

TEST(PostgresQueue, DamageIsFoundAtTheStartAndNamed) {
  TestServer& server = shared_server();
  const std::pair<const char*, const char*> damages[] = {
      {"UPDATE jobs SET accepted_at_ms = 7 WHERE seq = 1", "the stored request of job"},
      {"UPDATE jobs SET spec = spec || '\\x00' WHERE seq = 1", "the stored request of job"},
      {"UPDATE work SET attempts = 9", "the stored lease of job"},
      {"UPDATE work SET losses = losses || '\\x01'", "the stored losses of job"},
      {"UPDATE work SET progress = '\\x01000000'", "the stored progress of job"},
      {"UPDATE results SET expires_at_ms = expires_at_ms + 1", "the stored result of job"},
      {"UPDATE modes SET mode = 3", "the stored mode"}};
  for (const auto& [damage, named] : damages) {
    const std::string queue = fresh_queue(server);
    {
      Recovery recovery;
      auto journal = open_journal(options_of(server.url(), queue), recovery);
      for (uint64_t order = 1; order <= 2; ++order) journal->append(accepted(order));
      journal->append(Leased{id_of(1), 1, {1, 0}, 1, "lost"});
      journal->append(Progress{id_of(1), 1, {5}});
      journal->append(finished(2, "two"));
      journal->append(ModeSet{protocol::ControlScope::kQueue, "", protocol::QueueMode::kPaused});
    }
    EXPECT_EQ(inspect_queue(server.url(), queue).damage, "");
    Connection(server.url(), queue, seconds(5)).query(damage);
    EXPECT_THAT(open_error(options_of(server.url(), queue)), HasSubstr(named)) << damage;
    EXPECT_THAT(inspect_queue(server.url(), queue).damage, HasSubstr(named)) << damage;
  }
}

}  // namespace postgres_queue_test
}  // namespace optserve::journal
