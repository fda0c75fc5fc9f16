// The journal on a disk that loses what was not synced, that fails, and whose bits flip.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "base/sanitized.h"
#include "journal/journal_test_model.h"
#include "journal/sqlite/crash_vfs.h"

namespace optserve::journal {
namespace journal_crash_test {

constexpr size_t kImages = kSanitizedBuild ? 200 : 2'000;

using namespace testing;  // NOLINT: the tests' own

// In memory if possible, since thousands of small journals are opened.
std::filesystem::path fast_folder() {
  const std::filesystem::path memory = "/dev/shm";
  std::error_code failure;
  const bool is_there = std::filesystem::is_directory(memory, failure) && ::access(memory.c_str(), W_OK) == 0;
  return is_there ? memory : std::filesystem::temp_directory_path();
}

JournalOptions options_for(const std::string& path) {
  JournalOptions options;
  options.path = path;
  options.reserve_bytes = 0;
  return options;
}

// A file system at one moment, and the two states of the journal that are allowed then: without and with the
// transaction in progress.
struct Moment {
  CrashVfs::Image image;
  std::string commits;  // the commit record at that time
  std::shared_ptr<const Model> before, after;
};

// Returns "" if the journal opens and is in one of the two states.
std::string verdict_on(const Moment& moment, const std::string& source) {
  TempFolder folder(fast_folder());
  const std::string path = folder.file("journal.db");
  for (const auto& [name, bytes] : moment.image) {
    if (name.starts_with(source)) write_file(path + name.substr(source.size()), bytes);
  }
  if (!moment.commits.empty()) write_file(path + ".commits", moment.commits);
  try {
    Recovery recovery;
    JournalDatabase database(options_for(path), Instant{}, recovery);
    std::string wrong;
    for (const auto& allowed : {moment.before, moment.after}) {
      Model model = *allowed;
      model.restart();
      wrong = difference(model, recovery, database);
      if (wrong.empty()) return "";
    }
    return wrong;
  } catch (const Error& error) {
    return error.what();
  }
}

// One journal on a crashing disk, driven through a random history. It collects Moments.
class CrashRun {
 public:
  CrashRun(uint64_t seed, int one_in, bool normal = false)
      : random_(seed), history_(random_), folder_(fast_folder()), path_(folder_.file("journal.db")), normal_(normal) {
    vfs_.before = [this, one_in](IoKind, const std::string&) {
      if (random_() % static_cast<uint64_t>(one_in) == 0) keep_moment();
      return SQLITE_OK;
    };
  }

  void run(int commits) {
    open();
    for (int i = 0; i < commits; ++i) {
      const auto records = history_.batch(*model_, term_);
      auto next = std::make_shared<Model>(*model_);
      for (const Record& record : records) next->apply(record);
      step(next, [&] { database_->commit(records, Instant{}); });
      const uint64_t choice = random_() % 40;
      if (choice < 3) database_->checkpoint();
      if (choice == 3) database_->checkpoint(JournalDatabase::Checkpoint::kTruncate);
      if (choice == 4) purge();
      if (choice == 5) {
        database_.reset();
        open();
      }
    }
    database_.reset();
  }
  const std::vector<Moment>& moments() const { return moments_; }
  const std::string& path() const { return path_; }

 private:
  void open() {
    auto next = std::make_shared<Model>(*model_);
    next->restart();
    step(next, [&] {
      Recovery recovery;
      database_ = std::make_unique<JournalDatabase>(options_for(path_), Instant{}, recovery);
      term_ = recovery.term;
    });
    if (normal_) database_->connection().execute("PRAGMA synchronous = NORMAL");
  }
  void purge() {
    auto next = std::make_shared<Model>(*model_);
    next->purge(protocol::JobState::kSucceeded);
    protocol::JobFilter filter;
    filter.state = protocol::JobState::kSucceeded;
    step(next, [&] { database_->purge_ended(filter, 0, 100'000, Instant{}); });
  }
  void step(const std::shared_ptr<const Model>& next, const std::function<void()>& transaction) {
    next_ = next;
    transaction();
    model_ = next;
  }
  void keep_moment() {
    Moment moment{vfs_.image(random_), "", model_, next_};
    // The record is not synced with each commit, so it may be as it is, older, or missing.
    const std::string now = read_file(path_ + ".commits");
    if (!now.empty() && (commits_.empty() || commits_.back() != now)) commits_.push_back(now);
    if (!commits_.empty() && !normal_ && random_() % 4 != 0) {
      moment.commits = random_() % 2 == 0 ? commits_.back() : commits_[random_() % commits_.size()];
    }
    moments_.push_back(std::move(moment));
  }

  std::mt19937_64 random_;
  History history_;
  TempFolder folder_;
  const std::string path_;
  const bool normal_;
  CrashVfs vfs_;
  std::unique_ptr<JournalDatabase> database_;
  std::shared_ptr<const Model> model_ = std::make_shared<Model>(), next_ = model_;
  uint64_t term_ = 0;
  std::vector<std::string> commits_;
  std::vector<Moment> moments_;
};

// Verdicts on the moments of one run, after its disk is gone.
std::vector<std::string> verdicts(uint64_t seed, bool normal) {
  std::vector<Moment> moments;
  std::string path;
  {
    CrashRun run(seed, 12, normal);
    run.run(40);
    moments = run.moments();
    path = run.path();
  }
  std::vector<std::string> found;
  for (const Moment& moment : moments) found.push_back(verdict_on(moment, path));
  return found;
}

TEST(JournalCrash, ALossOfPowerAtAnyMomentLosesNothingDurable) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  size_t images = 0;
  for (uint64_t run = 0; images < kImages; ++run) {
    const auto found = verdicts(seed + run, false);
    images += found.size();
    for (const std::string& wrong : found) ASSERT_EQ(wrong, "") << "seed " << seed + run;
  }
  RecordProperty("images", static_cast<int>(images));
  std::printf("%zu crash images from seed %llu\n", images, static_cast<unsigned long long>(seed));
}

// The inverse test: the same check finds that a journal without a sync for each commit loses what it promised.
TEST(JournalCrash, WithoutASyncForEachCommitSomethingIsLost) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  size_t images = 0, lost = 0;
  for (uint64_t run = 0; images < 1'000 && lost == 0; ++run) {
    const auto found = verdicts(seed + run, true);
    images += found.size();
    for (const std::string& wrong : found) lost += !wrong.empty();
  }
  std::printf("%zu of %zu images with synchronous=NORMAL lost something\n", lost, images);
  EXPECT_GT(lost, 0u);
}

// --- a disk that fails

struct Failing {
  IoKind kind;
  int code;
};

// Lets the n-th operation of a kind fail once. Returns false if there were not so many.
bool survives_failure(const Failing& failing, int n, uint64_t seed) {
  std::mt19937_64 random(seed);
  History history(random);
  TempFolder folder(fast_folder());
  const std::string path = folder.file("journal.db");
  auto before = std::make_shared<Model>(), after = before;
  bool has_failed = false;
  Moment crashed;
  {
    CrashVfs vfs;
    int count = 0;
    vfs.before = [&](IoKind kind, const std::string&) {
      if (kind != failing.kind || ++count != n) return SQLITE_OK;
      has_failed = true;
      return failing.code;
    };
    try {
      Recovery recovery;
      JournalDatabase database(options_for(path), Instant{}, recovery);
      for (int i = 0; i < 8; ++i) {
        const auto records = history.batch(*before, recovery.term);
        after = std::make_shared<Model>(*before);
        for (const Record& record : records) after->apply(record);
        try {
          database.commit(records, Instant{});
        } catch (const SqliteError& error) {
          if (error.code() != SQLITE_FULL) throw;
          database.commit(records, Instant{});  // nothing was changed: the same records again
        }
        before = after;
        if (i == 5) database.checkpoint();
      }
    } catch (const Error&) {
      EXPECT_TRUE(has_failed);
    }
    crashed = {vfs.image(random), read_file(path + ".commits"), before, after};
  }
  const Moment killed{{{path, read_file(path)}, {path + "-wal", read_file(path + "-wal")}},
                      read_file(path + ".commits"),
                      before,
                      after};
  EXPECT_EQ(verdict_on(killed, path), "") << "process ended";
  EXPECT_EQ(verdict_on(crashed, path), "") << "power lost";
  return has_failed;
}

TEST(JournalCrash, AnyFailingOperationEndsTheProcessOrChangesNothing) {
  const uint64_t seed = std::random_device()();
  for (const Failing& failing : {Failing{IoKind::kWrite, SQLITE_IOERR_WRITE},
                                 {IoKind::kWrite, SQLITE_FULL},
                                 {IoKind::kSync, SQLITE_IOERR_FSYNC},
                                 {IoKind::kOpen, SQLITE_CANTOPEN},
                                 {IoKind::kTruncate, SQLITE_IOERR_TRUNCATE}}) {
    int n = 1;
    for (; survives_failure(failing, n, seed); ++n) {
      ASSERT_FALSE(HasFailure()) << "operation " << n << " failed with " << failing.code << ", seed " << seed;
      ASSERT_LT(n, 2'000);
    }
    EXPECT_GT(n, 1) << "nothing failed";
  }
}

// --- flipped bits

// Opening either names the damage or finds everything that was there.
void flip_bits(const std::vector<std::string>& names, const std::function<std::string(const std::string&)>& good,
               const Model& model, int rounds) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  int found = 0;
  for (int round = 0; round < rounds; ++round) {
    TempFolder folder(fast_folder());
    const std::string path = folder.file("journal.db");
    for (const std::string& name : names) write_file(path + name, good(name));
    const std::string& victim = names[random() % names.size()];
    std::string bytes = good(victim);
    if (bytes.empty()) continue;
    const size_t at = random() % bytes.size();
    const auto bit = static_cast<char>(1u << (random() % 8));
    bytes[at] = static_cast<char>(bytes[at] ^ bit);
    write_file(path + victim, bytes);
    SCOPED_TRACE("bit " + std::to_string(bit) + " of byte " + std::to_string(at) + " of journal.db" + victim);
    try {
      Recovery recovery;
      JournalDatabase database(options_for(path), Instant{}, recovery);
      ASSERT_EQ(difference(model, recovery, database), "");
    } catch (const Error& error) {
      ++found;
      EXPECT_THAT(error.what(), ::testing::HasSubstr("journal"));
    }
  }
  EXPECT_GT(found, rounds / 10);
}

TEST(JournalCrash, AFlippedBitIsNamedOrHarmless) {
  std::mt19937_64 random(std::random_device{}());
  TempFolder folder(fast_folder());
  const std::string path = folder.file("journal.db");
  Model model;
  std::map<std::string, std::string> closed, killed;
  {
    Recovery recovery;
    JournalDatabase database(options_for(path), Instant{}, recovery);
    History history(random);
    for (int i = 0; i < 60; ++i) {
      const auto records = history.batch(model, recovery.term);
      for (const Record& record : records) model.apply(record);
      database.commit(records, Instant{});
      if (i == 30) database.checkpoint();
    }
    for (const char* name : {"", "-wal", ".commits"}) killed[name] = read_file(path + name);
  }
  for (const char* name : {"", ".commits"}) closed[name] = read_file(path + name);
  model.restart();
  flip_bits(
      {"", ".commits"}, [&](const std::string& name) { return closed.at(name); }, model, 400);
  flip_bits(
      {"", "-wal", "-wal", ".commits"}, [&](const std::string& name) { return killed.at(name); }, model, 400);
}

// Without the record of commits, SQLite would drop what follows a flipped bit without anybody knowing.
TEST(JournalCrash, ALogThatIsGoneIsMissed) {
  TempFolder folder(fast_folder());
  const std::string path = folder.file("journal.db");
  const std::string copy = folder.file("copy.db");
  {
    Recovery recovery;
    JournalDatabase database(options_for(path), Instant{}, recovery);
    database.checkpoint();
    database.commit(std::vector<Record>{accepted(1)}, Instant{});
    write_file(copy, read_file(path));
    write_file(copy + ".commits", read_file(path + ".commits"));
  }
  EXPECT_THAT(open_error(options_for(copy)), ::testing::HasSubstr("1 commits that were on disk are missing"));
  std::filesystem::remove(copy + ".commits");
  EXPECT_EQ(open_error(options_for(copy)), "");
}

}  // namespace journal_crash_test
}  // namespace optserve::journal
