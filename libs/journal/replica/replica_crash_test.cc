// The replica of a journal on a disk that loses power and fails, at any moment of any history of the journal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "base/sanitized.h"
#include "journal/journal_test_model.h"
#include "journal/replica/lossy_replica_disk.h"
#include "journal/replica/replica.h"

namespace optserve::journal {
namespace replica_crash_test {

constexpr size_t kReplicaImages = kSanitizedBuild ? 100 : 400;

using namespace testing;  // NOLINT: the tests' own
using ::testing::HasSubstr;

std::filesystem::path memory_folder() {
  const std::filesystem::path memory = "/dev/shm";
  return ::access(memory.c_str(), W_OK) == 0 ? memory : std::filesystem::temp_directory_path();
}

JournalOptions plain_options(const std::string& path) {
  JournalOptions options;
  options.path = path;
  options.reserve_bytes = 0;
  return options;
}

using Models = std::map<uint64_t, std::shared_ptr<const Model>>;  // by number of commits

// What a loss of power left of a replica, and which commits it must or may have.
struct ReplicaMoment {
  LossyReplicaDisk::Image image;
  uint64_t shipped = 0;  // 0: nothing was promised yet
  uint64_t commits = 0;
};

// Returns "" if the replica can be restored to one of the allowed commits.
std::string verdict_on(const ReplicaMoment& moment, const Models& models) {
  TempFolder folder(memory_folder());
  const std::string replica = folder.file("replica");
  std::filesystem::create_directory(replica);
  for (const auto& [name, bytes] : moment.image) write_file(replica + "/" + name, bytes);
  const std::string path = folder.file("restored.db");
  try {
    restore_replica(replica, path, false);
  } catch (const Error& error) {
    const std::string why = error.what();
    const bool is_unfinished = why.ends_with("holds none") || why.find("was not finished") != std::string::npos;
    return is_unfinished && moment.shipped == 0 ? "" : why;
  }
  Recovery recovery;
  JournalDatabase database(plain_options(path), Instant{}, recovery);
  const uint64_t found = database.commits_found();
  if (found < moment.shipped || found > moment.commits) {
    return "restored to commit " + std::to_string(found) + ", expected " + std::to_string(moment.shipped) + " to " +
           std::to_string(moment.commits);
  }
  if (!models.contains(found)) return "restored to a part of a purge";
  Model model = *models.at(found);
  model.restart();
  return difference(model, recovery, database);
}

struct ReplicaFaults {
  bool without_sync = false;           // the disk says that it has synced, and has not
  bool overwrites_unread_log = false;  // without telling the replica
  int failing_one_in = 0;              // of the disk's actions; 0: none
};

// One journal with its replica, driven through a random history.
class ReplicaRun {
 public:
  ReplicaRun(uint64_t seed, ReplicaFaults faults)
      : random_(seed), history_(random_), folder_(memory_folder()), path_(folder_.file("journal.db")), faults_(faults) {
    start({});
  }

  void run(int steps) {
    for (int i = 0; i < steps; ++i) {
      const uint64_t choice = random_() % 100;
      if (choice < 45) {
        commit();
      } else if (choice < 85) {
        guarded([&] { replicate(); });
      } else if (choice < 94) {
        checkpoint();
      } else if (choice < 96) {
        purge();
      } else {
        restart();
      }
    }
  }
  const std::vector<ReplicaMoment>& moments() const { return moments_; }
  const Models& models() const { return models_; }
  int completions() const { return completions_; }
  int resumptions() const { return resumptions_; }

 private:
  // A process begins, with a disk that has these files.
  void start(const LossyReplicaDisk::Image& image) {
    disk_ = std::make_unique<LossyReplicaDisk>(image);
    disk_->before = [this](DiskAction) {
      if (random_() % 8 == 0) moments_.push_back({disk_->image(random_), shipped_, commits()});
      return faults_.failing_one_in != 0 && random_() % static_cast<uint64_t>(faults_.failing_one_in) == 0;
    };
    disk_->ignores_syncs = faults_.without_sync;
    auto next = std::make_shared<Model>(*model_);
    next->restart();
    // Closing a descriptor of the file is allowed only when no connection is open.
    reader_.reset();
    Recovery recovery;
    database_ = std::make_unique<JournalDatabase>(plain_options(path_), Instant{}, recovery);
    term_ = recovery.term;
    reader_ = std::make_unique<JournalReader>(path_);
    keep(next);
    replica_ = std::make_unique<Replica>(*disk_, *reader_, ReplicaLimits{120'000, 30'000, 400'000});
    guarded([&] { replica_->attach(database_->position(), database_->commits_found()); });
    resumptions_ += replica_->must_seed() ? 0 : 1;
    note_shipped();
  }
  void restart() {
    replica_.reset();
    // An orderly end empties the log; a killed process leaves it.
    if (random_() % 2 == 0) {
      database_->checkpoint();
      database_.reset();
    } else {
      const std::string bytes = read_file(path_), log = read_file(path_ + "-wal");
      database_.reset();
      write_file(path_, bytes);
      write_file(path_ + "-wal", log);
    }
    const bool power_lost = random_() % 2 == 0;
    start(power_lost ? disk_->image(random_) : current());
  }
  // What programs see on the disk.
  LossyReplicaDisk::Image current() const {
    LossyReplicaDisk::Image image;
    disk_->before = nullptr;
    for (const std::string& name : disk_->names()) {
      const auto file = disk_->open(name, false);
      image[name] = file->read_at(static_cast<size_t>(file->bytes()), 0);
    }
    return image;
  }

  uint64_t commits() const { return database_ ? database_->position().commits : models_.rbegin()->first; }
  void keep(const std::shared_ptr<const Model>& next) {
    model_ = next;
    models_[database_->position().commits] = next;
  }
  void commit() {
    const auto records = history_.batch(*model_, term_);
    auto next = std::make_shared<Model>(*model_);
    for (const Record& record : records) next->apply(record);
    database_->commit(records, Instant{});
    keep(next);
  }
  void purge() {
    auto next = std::make_shared<Model>(*model_);
    next->purge(protocol::JobState::kSucceeded);
    protocol::JobFilter filter;
    filter.state = protocol::JobState::kSucceeded;
    database_->purge_ended(filter, 0, 100'000, Instant{});
    keep(next);
  }
  void checkpoint() {
    const bool truncates = random_() % 4 == 0;
    if (collected_ < commits()) {
      if (random_() % 3 != 0) {
        guarded([&] { collect(); });
      } else if (!faults_.overwrites_unread_log) {
        replica_->lose();
      }
    }
    if (collected_ < commits() && !replica_->must_seed() && !faults_.overwrites_unread_log) return;
    database_->checkpoint(truncates ? JournalDatabase::Checkpoint::kTruncate : JournalDatabase::Checkpoint::kPassive);
  }
  void collect() {
    if (replica_->must_seed()) return;
    replica_->collect(database_->position());
    if (!replica_->must_seed()) collected_ = commits();
  }
  void replicate() {
    const bool was_complete = !replica_->must_seed() && !replica_->is_seeding();
    if (replica_->must_seed()) {
      replica_->begin_seed(database_->position());
      collected_ = commits();
    } else if (!replica_->is_open()) {
      replica_->reopen();
    } else if (random_() % 2 == 0) {
      collect();
    } else if (replica_->is_seeding() && random_() % 2 == 0) {
      replica_->copy_some();
    } else {
      replica_->ship();
    }
    completions_ += !was_complete && !replica_->must_seed() && !replica_->is_seeding();
    note_shipped();
  }
  void guarded(const std::function<void()>& action) {
    try {
      action();
    } catch (const SyncError&) {
      replica_->failed(true);
    } catch (const Error&) {
      replica_->failed(false);
    }
  }
  void note_shipped() { shipped_ = std::max(shipped_, replica_->shipped_commits()); }

  std::mt19937_64 random_;
  History history_;
  TempFolder folder_;
  const std::string path_;
  const ReplicaFaults faults_;
  std::unique_ptr<LossyReplicaDisk> disk_;
  std::unique_ptr<JournalReader> reader_;
  std::unique_ptr<JournalDatabase> database_;
  std::unique_ptr<Replica> replica_;
  std::shared_ptr<const Model> model_ = std::make_shared<Model>();
  Models models_;
  std::vector<ReplicaMoment> moments_;
  uint64_t term_ = 0;
  uint64_t shipped_ = 0;    // on the replica's disk, by its word
  uint64_t collected_ = 0;  // read from the log
  int completions_ = 0, resumptions_ = 0;
};

struct Found {
  size_t images = 0;
  size_t wrong = 0;
  std::string first;
  int completions = 0, resumptions = 0;
};

// Goes on beyond `images`, within limits, until a copy has been completed and another resumed: both are rare in a run.
Found judge(uint64_t seed, ReplicaFaults faults, size_t images, size_t wrong_max) {
  constexpr uint64_t kRunsMax = 100;
  Found found;
  const auto goes_on = [&](uint64_t run) {
    const bool has_both = found.completions > 0 && found.resumptions > 0;
    return found.wrong < wrong_max && (found.images < images || (!has_both && run < kRunsMax));
  };
  for (uint64_t run = 0; goes_on(run); ++run) {
    ReplicaRun history(seed + run, faults);
    history.run(150);
    found.completions += history.completions();
    found.resumptions += history.resumptions();
    for (const ReplicaMoment& moment : history.moments()) {
      ++found.images;
      const std::string wrong = verdict_on(moment, history.models());
      if (wrong.empty()) continue;
      if (found.wrong++ == 0) found.first = "seed " + std::to_string(seed + run) + ": " + wrong;
      if (found.wrong >= wrong_max) break;
    }
  }
  std::printf("%zu images from seed %llu, %zu wrong; %d copies completed, %d resumed\n", found.images,
              static_cast<unsigned long long>(seed), found.wrong, found.completions, found.resumptions);
  return found;
}

TEST(ReplicaCrash, ALossOfPowerLeavesWhatWasShippedOrMore) {
  const uint64_t seed = std::random_device()();
  const Found found = judge(seed, {}, kReplicaImages, 1);
  EXPECT_EQ(found.first, "");
  EXPECT_GT(found.completions, 0);
  EXPECT_GT(found.resumptions, 0);
}

TEST(ReplicaCrash, SoDoesADiskThatFails) {
  const uint64_t seed = std::random_device()();
  const Found found = judge(seed, {.failing_one_in = 20}, kReplicaImages, 1);
  EXPECT_EQ(found.first, "");
  EXPECT_GT(found.completions, 0);
}

// The inverse tests: the same judge finds a disk that does not sync, and a log that was overwritten before it was read.
TEST(ReplicaCrash, ALogThatWasOverwrittenUnreadIsMissed) {
  const uint64_t seed = std::random_device()();
  EXPECT_GT(judge(seed, {.overwrites_unread_log = true}, 5'000, 1).wrong, 0u);
}

TEST(ReplicaCrash, ADiskThatDoesNotSyncIsMissed) {
  const uint64_t seed = std::random_device()();
  EXPECT_GT(judge(seed, {.without_sync = true}, 5'000, 1).wrong, 0u);
}

}  // namespace replica_crash_test
}  // namespace optserve::journal
