#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "audit/audit_log.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/lasting_time.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/text/audit_text.h"
#include "cli/text/text_table.h"
#include "client/scheduler_choice.h"
#include "journal/journal.h"
#include "journal/merge/journal_merge.h"

namespace optserve::cli {
namespace {

class JournalCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command(
        "journal", "Back up, check, restore and merge journals of schedulers, and read their audit logs", selected);
    ConfigParser& backup = command.add_command(
        "backup", "Have the running scheduler write a copy of its journal to its backup folder", backup_);
    add_options(backup, connection_options_);
    backup.add("wait-seconds", wait_seconds_, "Longest time to wait for the copy");
    backup.add("json", json_, "Print a JSON object");
    backup.add_example("optserve journal backup", "into the scheduler's --backup-folder");
    backup.add_example("optserve journal backup --json", "with its name, for a program");
    backup.add_example("optserve journal backup --wait-seconds 600", "a large journal");
    ConfigParser& check = command.add_command("check", "Check a journal that no scheduler uses, or a backup", check_);
    check.add_positional("file", file_, "The journal or backup, or the URL of a PostgreSQL database", true);
    check.add("queue", queue_, "In PostgreSQL: the queue");
    check.add("json", json_, "Print a JSON object");
    check.add_example("optserve journal check backups/journal-1.db", "a backup");
    check.add_example("optserve journal check optserve-run/journal.db", "the journal of a stack that is down");
    check.add_example("optserve journal check backups/journal-1.db --json", "for a program");
    declare_queue_part(command, "init", "Make a queue in a PostgreSQL database", init_,
                       {"", "to be used by the role that makes it"},
                       {" --role optserve", "to be used by another role, and no more"});
    declare_queue_part(command, "upgrade", "Raise a queue in PostgreSQL to this program's version", upgrade_,
                       {"", "while its schedulers are stopped"}, {" --queue batch", "one of several"});
    declare_audit(command);
    declare_merge(command);
    ConfigParser& restore = command.add_command(
        "restore", "Replace a journal by a backup or its replica while no scheduler runs", restore_);
    restore.add_positional("backup", backup_file_,
                           "The backup, a folder whose newest backup is used, or the folder of --journal-replica",
                           true);
    restore.add_positional("file", file_, "The journal", true);
    restore.add("replace", replace_, "Replace a journal that holds jobs; it is kept as <file>.replaced");
    restore.add_example("optserve journal restore backups journal.db", "the newest backup of a folder");
    restore.add_example("optserve journal restore /mnt/second/replica journal.db", "the last second of a replica");
    restore.add_example("optserve journal restore backups/journal-1.db journal.db", "a certain one");
    restore.add_example("optserve journal restore backups journal.db --replace", "where there is a journal with jobs");
  }

  int run(const Clock& clock) override {
    if (check_) return run_check();
    if (audit_) return run_audit();
    if (init_ || upgrade_) return run_queue_part();
    if (restore_) return run_restore();
    if (merge_) return run_merge(clock);
    return run_backup();
  }

 private:
  int run_backup() {
    Connection connection = Connection::open(connection_options_);
    const auto answers = connection.client().backup(seconds(wait_seconds_));
    nlohmann::ordered_json backups = nlohmann::ordered_json::array();
    for (const auto& [endpoint, answer] : answers) {
      if (!answer.ok()) continue;
      const protocol::BackedUp& copy = answer.value();
      backups.push_back({{"endpoint", endpoint}, {"file", copy.file}, {"bytes", copy.bytes}});
      if (!json_) {
        std::printf("scheduler %s: %s, %lld bytes\n", endpoint.c_str(), copy.file.c_str(),
                    static_cast<long long>(copy.bytes));
      }
    }
    if (json_) std::fputs(json_line({{"backups", std::move(backups)}}).c_str(), stdout);
    return report_refusals(answers);
  }

  int run_check() const {
    // A URL is shown without its parameters.
    const bool is_url = journal::is_postgres_url(file_);
    const std::string name = is_url ? "queue " + queue_ : file_;
    const journal::JournalSummary found =
        is_url ? journal::inspect_queue(file_, queue_) : journal::inspect_journal(file_);
    const std::string oldest = found.oldest_open_wall_ms == 0 ? "" : utc_text(found.oldest_open_wall_ms);
    if (json_) {
      std::fputs(json_line({{"file", name},
                            {"sound", found.damage.empty()},
                            {"damage", found.damage},
                            {"schema_version", found.schema_version},
                            {"term", found.term},
                            {"open", found.open},
                            {"ended", found.ended},
                            {"dead", found.dead},
                            {"oldest_open", oldest},
                            {"bytes", found.bytes},
                            {"leader", found.holder}})
                     .c_str(),
                 stdout);
    } else {
      std::printf("%s: schema %lld, term %llu, %lld bytes\n", name.c_str(),
                  static_cast<long long>(found.schema_version), static_cast<unsigned long long>(found.term),
                  static_cast<long long>(found.bytes));
      std::printf("%lld jobs open%s%s, %lld ended, %lld of them dead\n", static_cast<long long>(found.open),
                  oldest.empty() ? "" : ", the oldest since ", oldest.c_str(), static_cast<long long>(found.ended),
                  static_cast<long long>(found.dead));
      if (!found.holder.empty()) std::printf("led by the scheduler at %s\n", found.holder.c_str());
      std::printf("%s\n", found.damage.empty() ? "sound" : ("damaged: " + found.damage).c_str());
    }
    return found.damage.empty() ? kExitOk : kExitFailed;
  }

  void declare_audit(ConfigParser& command) {
    ConfigParser& audit = command.add_command(
        "audit", "What operators did and tried, newest first, also while the scheduler runs", audit_);
    audit.add_positional("files", files_, "Audit logs: the name of the journal and .audit, or that of --audit-log",
                         true);
    audit.add("limit", limit_, "Most records").range(1, 1e6);
    audit.add("json", json_, "Print a JSON object");
    audit.add_example("optserve journal audit optserve-run/journal.db.audit", "of a local stack");
    audit.add_example("optserve journal audit /var/lib/optserve/journal.db.audit --limit 1000 --json", "for a program");
    audit.add_example("optserve journal audit a.audit b.audit", "of the schedulers of one queue, merged by time");
  }

  int run_audit() const {
    const audit::Listing listing = audit::read_logs(files_, static_cast<size_t>(limit_));
    if (listing.records.empty() && listing.unreadable > 0) {
      throw Error(files_.front() + " holds no audit records: expected the name of the journal and .audit");
    }
    std::fputs((json_ ? audit_json(listing) : audit_table(listing)).c_str(), stdout);
    if (listing.unreadable > 0 && !json_) {
      std::fprintf(stderr, "warning: %llu lines are no records: cut by a loss of power, or changed by somebody\n",
                   static_cast<unsigned long long>(listing.unreadable));
    }
    return kExitOk;
  }

  struct Sample {
    const char* options;
    const char* what;
  };
  void declare_queue_part(ConfigParser& command, const char* name, const char* help, bool& part, Sample first,
                          Sample second) {
    ConfigParser& parser = command.add_command(name, help, part);
    parser.add_positional("url", file_, "postgresql://USER@HOST/DATABASE, without a password", true);
    parser.add("queue", queue_, "The queue: a schema of the database");
    if (&part == &init_) parser.add("role", roles_, "Role that may use the queue and nothing more; repeatable");
    const std::string line = "optserve journal " + std::string(name) + " postgresql://optserve@db/optserve";
    parser.add_example(line, first.what);
    parser.add_example(line + second.options, second.what);
    parser.add_example(line + "?sslmode=verify-full", "over TLS, with the server's certificate checked");
  }

  int run_queue_part() const {
    journal::check_journal_url(file_);
    if (init_) {
      journal::init_queue(file_, queue_, roles_);
      std::printf("the queue '%s' is ready\n", queue_.c_str());
    } else {
      const bool raised = journal::upgrade_queue(file_, queue_);
      std::printf("the queue '%s' %s\n", queue_.c_str(), raised ? "is raised" : "is of the present version already");
    }
    return kExitOk;
  }

  int run_restore() const {
    if (journal::holds_replica(backup_file_)) {
      const journal::RestoredReplica restored = journal::restore_replica(backup_file_, file_, replace_);
      std::printf("%s is restored from the replica %s, as it was at %s; what came later is unknown\n", file_.c_str(),
                  backup_file_.c_str(), utc_text(restored.wall_ms).c_str());
      return kExitOk;
    }
    std::string backup = backup_file_;
    if (std::filesystem::is_directory(backup)) {
      backup = journal::latest_backup(backup_file_);
      if (backup.empty()) throw Error(backup_file_ + " holds neither a backup nor a replica");
    }
    journal::restore_journal(backup, file_, replace_);
    std::printf(
        "%s is restored from %s; jobs that ended after the backup run again, jobs accepted after it are unknown\n",
        file_.c_str(), backup.c_str());
    return kExitOk;
  }

  void declare_merge(ConfigParser& command) {
    ConfigParser& merge = command.add_command(
        "merge", "Move the jobs and results of a scheduler that is gone for good into another's journal", merge_);
    merge.add_positional("from", from_,
                         "Its journal, a backup, a folder of backups, the folder of --journal-replica, or a URL", true);
    merge.add_positional("into", file_, "The other journal, or its URL, while no scheduler uses it", true);
    merge.add("from-queue", from_queue_, "In PostgreSQL: the queue that is emptied");
    merge.add("into-queue", queue_, "In PostgreSQL: the queue that remains");
    merge.add("schedulers", schedulers_,
              "All addresses that clients are going to be given, with commas; with --as: move only some jobs");
    merge.add("as", address_, "Which of --schedulers the other journal's is; jobs of its keys are moved, others stay");
    merge.add("json", json_, "Print a JSON object");
    merge.add_example("optserve journal merge /mnt/a/journal.db journal.db", "from the disk of a machine that is gone");
    merge.add_example("optserve journal merge /mnt/second/replica journal.db", "from the replica, if the disk is gone");
    merge.add_example("optserve journal merge a.db b.db --schedulers tcp://b:5555,tcp://c:5555 --as tcp://b:5555",
                      "the part whose keys b has from now on; another run takes the rest to c");
    merge.add_example("optserve journal merge postgresql://optserve@db/optserve journal.db --from-queue a",
                      "from a queue in PostgreSQL into a file");
  }

  // Clients look for a key at the scheduler that they would give it to.
  std::function<bool(const std::string& tenant, const std::string& key)> keys_of_one() const {
    if (schedulers_.empty()) throw CommandFailure{kExitUsage, "--as: name all of --schedulers too", "bad_request"};
    auto endpoints = client::split_endpoints(schedulers_);
    if (!endpoints.ok()) throw CommandFailure{kExitUsage, endpoints.refusal().message, "bad_request"};
    const auto found = std::ranges::find(endpoints.value(), address_);
    if (found == endpoints.value().end()) {
      throw CommandFailure{kExitUsage, "--as is '" + address_ + "', expected one of --schedulers " + schedulers_,
                           "bad_request"};
    }
    const auto index = static_cast<size_t>(found - endpoints.value().begin());
    return [index, endpoints = std::move(endpoints).value()](const std::string& tenant, const std::string& key) {
      return client::scheduler_order(tenant, key, endpoints).front() == index;
    };
  }

  int run_merge(const Clock& clock) const {
    std::function<bool(const std::string&, const std::string&)> belongs;
    if (!schedulers_.empty() || !address_.empty()) belongs = keys_of_one();
    const journal::MergeSource source = journal::merge_source(from_);
    journal::MergeOptions options;
    options.from.path = source.path;
    options.from.queue = from_queue_;
    options.from.reserve_bytes = options.into.reserve_bytes = 0;
    options.into.path = file_;
    options.into.queue = queue_;
    options.belongs = std::move(belongs);
    options.from.holder = options.into.holder = "optserve journal merge";
    options.from.boot = options.into.boot = boot_id();
    const journal::MergeOutcome outcome = journal::merge_journals(options, clock);
    nlohmann::ordered_json conflicts = nlohmann::ordered_json::array();
    for (const journal::KeyConflict& conflict : outcome.conflicts) {
      conflicts.push_back({{"tenant", conflict.tenant},
                           {"key", conflict.key},
                           {"job", conflict.from.hex()},
                           {"other", conflict.into.hex()}});
    }
    if (json_) {
      std::fputs(json_line({{"open", outcome.open},
                            {"ended", outcome.ended},
                            {"duplicates", outcome.duplicates},
                            {"moved_before", outcome.known},
                            {"stayed", outcome.stayed},
                            {"term", outcome.term},
                            {"conflicts", std::move(conflicts)}})
                     .c_str(),
                 stdout);
    } else {
      print_merge(outcome, source);
    }
    return outcome.conflicts.empty() ? kExitOk : kExitFailed;
  }

  // A URL may hold parameters that are nobody's business.
  static std::string shown(const std::string& journal, const std::string& queue) {
    return journal::is_postgres_url(journal) ? "the queue '" + queue + "'" : journal;
  }

  void print_merge(const journal::MergeOutcome& outcome, const journal::MergeSource& source) const {
    std::printf("%llu open jobs and %llu results moved to %s, %llu jobs were in both, term %llu\n",
                static_cast<unsigned long long>(outcome.open), static_cast<unsigned long long>(outcome.ended),
                shown(file_, queue_).c_str(), static_cast<unsigned long long>(outcome.duplicates),
                static_cast<unsigned long long>(outcome.term));
    if (outcome.known > 0) {
      std::printf("%llu jobs had come with an earlier run\n", static_cast<unsigned long long>(outcome.known));
    }
    for (const journal::KeyConflict& conflict : outcome.conflicts) {
      std::printf("not moved: job %s: key '%s' of tenant '%s' is job %s there, with another payload\n",
                  conflict.from.hex().c_str(), conflict.key.c_str(), conflict.tenant.c_str(),
                  conflict.into.hex().c_str());
    }
    if (outcome.stayed > 0) {
      std::printf("%llu jobs stay: their keys belong to other schedulers\n",
                  static_cast<unsigned long long>(outcome.stayed));
    }
    const std::string left = shown(source.path, from_queue_);
    if (source.is_a_copy) {
      std::printf("%s says what was moved: keep it as long as somebody might repeat the merge\n", left.c_str());
    } else if (schedulers_.empty()) {
      std::printf("%s is set to drain: a scheduler that is started on it accepts no job\n", left.c_str());
    }
  }

  ConnectionOptions connection_options_;
  bool backup_ = false, check_ = false, restore_ = false;
  bool init_ = false, upgrade_ = false, audit_ = false, merge_ = false;
  std::string schedulers_, address_;
  std::string file_, backup_file_, from_, queue_ = "optserve", from_queue_ = "optserve";
  std::vector<std::string> roles_, files_;
  int limit_ = 100;
  bool replace_ = false;
  int wait_seconds_ = 600;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_journal_command() { return std::make_unique<JournalCommand>(); }

}  // namespace optserve::cli
