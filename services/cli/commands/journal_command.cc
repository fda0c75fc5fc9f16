#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "audit/audit_log.h"
#include "base/clock.h"
#include "base/error.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/text/audit_text.h"
#include "cli/text/text_table.h"
#include "journal/journal.h"

namespace optserve::cli {
namespace {

class JournalCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command(
        "journal", "Back up, check and restore the journal of a scheduler, and read its audit log", selected);
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

  int run(const Clock&) override {
    if (check_) return run_check();
    if (audit_) return run_audit();
    if (init_ || upgrade_) return run_queue_part();
    if (restore_) return run_restore();
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

  ConnectionOptions connection_options_;
  bool backup_ = false, check_ = false, restore_ = false;
  bool init_ = false, upgrade_ = false, audit_ = false;
  std::string file_, backup_file_, queue_ = "optserve";
  std::vector<std::string> roles_, files_;
  int limit_ = 100;
  bool replace_ = false;
  int wait_seconds_ = 600;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_journal_command() { return std::make_unique<JournalCommand>(); }

}  // namespace optserve::cli
