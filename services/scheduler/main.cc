// optserve-scheduler: holds the job queue. Clients connect to one port, tokenizers, workers and converters to another.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <thread>

#include "base/address_check.h"
#include "base/config.h"
#include "base/exit_status.h"
#include "base/lasting_time.h"
#include "base/log.h"
#include "base/program.h"
#include "base/shutdown.h"
#include "confinement/program_cage.h"
#include "http/health_server.h"
#include "journal/journal.h"
#include "keys/key_options.h"
#include "keys/tenant_quotas.h"
#include "scheduler/journal_metrics.h"
#include "scheduler/operators/audit_sink.h"
#include "scheduler/scheduler_service.h"
#include "transport/service_loop.h"

namespace {

using namespace optserve;

struct Options {
  CommonOptions common;
  std::string sandbox = "try";
  std::string bind_clients = "tcp://127.0.0.1:5555";
  std::string bind_services = "tcp://127.0.0.1:5556";
  std::string journal = "optserve-journal.db";
  std::string journal_queue = "optserve";
  double outage_seconds = 5;
  std::string backup_folder;
  int backup_seconds = 3'600;
  int backups_kept = 24;
  std::string journal_replica;
  bool in_memory = false;
  std::string audit_log;
  std::string waiting_folder;
  std::vector<std::string> models;
  int64_t drain_seconds = 60;
  int64_t open_jobs_max = static_cast<int64_t>(limits::kOpenJobsMax);
  int64_t queue_memory_mb = 1'024;
  double queue_seconds = 600;
  int64_t tenant_jobs_max = static_cast<int64_t>(limits::kOpenJobsMax);
  double tenant_share = 0.9;
  std::string tenant_weights;
  std::string tenant_quotas;
  bool prefix_affinity = true;
  bool isolate_tenants = false;
  int64_t prompt_bytes_kept = 1'024;
  keys::ServerKeyOptions keys;
  double slow_job_seconds = 30;
};

scheduler::SchedulerOptions settings_of(const Options& options, const Clock& clock) {
  auto weights = scheduler::TenantWeights::parse(options.tenant_weights);
  if (!weights.ok()) throw ConfigurationError(weights.refusal().message);
  scheduler::SchedulerOptions settings;
  settings.start = clock.now();
  settings.wall_ms = [&clock] { return clock.wall_ms(); };
  settings.seed = std::hash<Id128>()(Id128::random());
  settings.models = options.models;
  settings.open_jobs_max = static_cast<size_t>(options.open_jobs_max);
  settings.queue_bytes_max = static_cast<size_t>(options.queue_memory_mb) << 20;
  settings.queue_seconds_max = options.queue_seconds;
  settings.tenant_jobs_max = static_cast<size_t>(options.tenant_jobs_max);
  settings.tenant_share = options.tenant_share;
  settings.tenant_weights = std::move(weights).value();
  settings.prefix_affinity = options.prefix_affinity;
  settings.isolate_tenants = options.isolate_tenants;
  settings.prompt_bytes_kept = static_cast<size_t>(options.prompt_bytes_kept);
  settings.slow_job = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options.slow_job_seconds));
  return settings;
}

// A folder that is not there is not made: the journal would be on another disk than the operator thinks.
void check_folder(const std::string& option, const std::string& file) {
  const std::filesystem::path folder = std::filesystem::absolute(file).parent_path();
  std::error_code failure;
  if (!std::filesystem::is_directory(folder, failure)) {
    throw ConfigurationError(option + " is " + file + ", but there is no folder " + folder.string());
  }
}

// Without a journal the earlier terms are unknown. A random term differs from any that a peer may still hold, whereas a
// time could repeat when the clock is set back. It is above 1, since peers may know an earlier term.
uint64_t volatile_term() { return 2 + std::hash<Id128>()(Id128::random()) / 4; }

// How long another process has to take over what was handed over, before this process takes it back.
constexpr seconds kHandOverPause{1};

// The process was told to end while it waits to lead.
class StoppedWaiting : public std::exception {};

// What a process keeps while it serves, hands over, stands by and serves again.
struct Process {
  const Clock& clock;
  metrics::Registry& registry;
  metrics::Health& health;
  scheduler::AuditSink& audit;
};

// Opens the journal; of one in PostgreSQL, once this process leads the queue. Until then nobody can reach it but those
// who ask for its health, so clients and services look at its other addresses.
std::unique_ptr<journal::Journal> open_journal(const Options& options, const Clock& clock, metrics::Registry& registry,
                                               metrics::Health& health, journal::Recovery& recovery) {
  const scheduler::JournalMetrics measured(registry);
  journal::JournalOptions settings{.path = options.journal,
                                   .backup_folder = options.backup_folder,
                                   .backup_interval = seconds(options.backup_seconds),
                                   .backups_kept = static_cast<size_t>(options.backups_kept),
                                   .replica_folder = options.journal_replica,
                                   .boot = boot_id()};
  settings.on_commit = [measured](size_t records, Duration time) { measured.on_commit(records, time); };
  settings.on_state = [measured](const auto& state) { measured.on_state(state); };
  if (!journal::is_postgres_url(options.journal)) {
    check_folder("journal", options.journal);
    return journal::Journal::open(settings, clock, recovery);
  }
  journal::check_journal_url(options.journal);
  settings.queue = options.journal_queue;
  settings.holder = options.bind_clients;
  settings.outage_max = milliseconds(static_cast<int64_t>(options.outage_seconds * 1'000));
  std::string told;
  settings.stand_by = [&](const std::string& why) {
    if (shutdown_requested()) throw StoppedWaiting();
    if (why != told) log_info("standby", {{"queue", options.journal_queue}, {"why", why}});
    told = why;
    health.started = true;
    health.stamp();
    health.set_problem("standby: " + why);
    return true;
  };
  auto opened = journal::Journal::open(settings, clock, recovery);
  log_info("leads", {{"queue", options.journal_queue}, {"term", recovery.term}});
  health.set_problem("");
  return opened;
}

// Where jobs that wait behind many others are kept; "": in memory.
std::string waiting_folder_of(const Options& options) {
  if (!options.waiting_folder.empty()) return options.waiting_folder;
  if (options.in_memory || journal::is_postgres_url(options.journal)) return "";
  return std::filesystem::absolute(options.journal).parent_path().string();
}

// True: the queue was handed over to another, and this process is to stand by.
bool serve(const Options& options, const std::shared_ptr<keys::ServerKeys>& keys,
           const std::shared_ptr<keys::QuotaFile>& quotas, Process process) {
  const Clock& clock = process.clock;
  metrics::Registry& registry = process.registry;
  metrics::Health& health = process.health;
  scheduler::AuditSink& audit = process.audit;
  journal::Recovery recovery;
  recovery.term = 1;
  std::unique_ptr<journal::Journal> disk;
  journal::MemoryStore memory;
  if (options.in_memory) {
    log_warn("volatile", {{"meaning", "accepted jobs do not survive this process"}});
    recovery.term = volatile_term();
  } else {
    disk = open_journal(options, clock, registry, health, recovery);
  }
  journal::JobStore& store = disk ? static_cast<journal::JobStore&>(*disk) : memory;

  scheduler::SchedulerOptions settings = settings_of(options, clock);
  settings.waiting_folder = waiting_folder_of(options);
  if (quotas != nullptr) {
    quotas->refresh();  // standing by may have taken long
    settings.tenant_quotas = quotas->quotas();
  }
  audit.note("start", "scheduler", scheduler::state_text(recovery.term, keys.get(), quotas.get()));
  scheduler::SchedulerService service(settings, store, std::move(recovery), registry);

  transport::ServiceLoop loop(service, clock, registry);
  loop.set_durability({disk ? disk->event_fd() : -1, [&store] { return store.durable(); }});
  bool handed_over = false;
  if (disk) {
    loop.watch(disk->answers_fd(), [&](Instant now, auto& out) { service.on_answers(now, out); });
    loop.watch(disk->hand_over_fd(), [&](Instant, auto&) {
      log_info("hand_over", {{"queue", options.journal_queue}});
      audit.note("hand_over", "queue " + options.journal_queue, "asked for in the database");
      loop.unwatch(disk->hand_over_fd());
      handed_over = true;
      loop.end();
    });
  }
  loop.set_health(&health);
  loop.watch(shutdown_fd(), [&](Instant, auto&) {
    health.ready = false;  // draining: no new work
    loop.unwatch(shutdown_fd());
  });
  if (quotas != nullptr) service.set_quota_source([&] { return quotas->refresh() ? quotas->quotas() : nullptr; });
  service.set_audit([&audit](audit::Record record) { audit.write(std::move(record)); },
                    [&loop] { return loop.sender_address(); });
  if (keys != nullptr) service.set_key_of([&loop](const transport::Peer& peer) { return loop.key_of(peer); });
  settings.clients_port = loop.bind(options.bind_clients, {.message_bytes_max = limits::kClientMessageBytesMax,
                                                           .name = "clients",
                                                           .server_keys = keys,
                                                           .door = keys::Door::kClients,
                                                           .is_insecure = options.keys.insecure});
  settings.services_port = loop.bind(
      options.bind_services,
      {.name = "services", .server_keys = keys, .door = keys::Door::kServices, .is_insecure = options.keys.insecure});
  health.stamp();
  health.started = health.ready = true;
  log_info("ready", {{"clients", loop.bound_endpoint(settings.clients_port)},
                     {"services", loop.bound_endpoint(settings.services_port)},
                     {"public_key", keys != nullptr ? keys->own().public_key().text() : "none"},
                     {"http_port", options.common.http_port}});
  loop.run(seconds(options.drain_seconds));
  health.ready = false;
  service.give_back_leases();
  if (!handed_over) audit.note("stop", "scheduler");
  return handed_over;
}

// nullptr: there is no file of quotas.
std::shared_ptr<keys::QuotaFile> load_quotas(const std::string& file) {
  if (file.empty()) return nullptr;
  auto quotas = keys::QuotaFile::load(file);
  if (!quotas.ok()) throw ConfigurationError("tenant-quotas: " + quotas.refusal().message);
  return std::move(quotas).value();
}

// Beside the journal, which others may take back to an earlier day; that must not take back who did so. "": none.
std::string audit_file_of(const Options& options) {
  if (!options.audit_log.empty()) {
    check_folder("audit-log", options.audit_log);
    return options.audit_log;
  }
  if (options.in_memory || journal::is_postgres_url(options.journal)) {
    log_warn("no_audit_log", {{"meaning", "what operators do is in this log alone; --audit-log FILE keeps it"}});
    return "";
  }
  return options.journal + ".audit";
}

void check_replica(const Options& options) {
  if (options.journal_replica.empty()) return;
  if (options.in_memory) throw ConfigurationError("journal-replica: with --volatile there is no journal to copy");
  if (journal::is_postgres_url(options.journal)) {
    throw ConfigurationError(
        "journal-replica: it is for a journal in a file; a queue in PostgreSQL is replicated by its server "
        "(synchronous_standby_names, docs/journal.md)");
  }
}

void run(const Options& options) {
  for (const auto& [name, address] :
       {std::pair{"bind-clients", options.bind_clients}, std::pair{"bind-services", options.bind_services}}) {
    const Status status = check_address(name, address, AddressUse::kListen);
    if (!status.ok()) throw ConfigurationError(status.refusal().message);
  }
  check_replica(options);
  confinement::enter(confinement::kScheduler, options.sandbox);
  const std::shared_ptr<keys::ServerKeys> keys = keys::load(options.keys);
  const std::shared_ptr<keys::QuotaFile> quotas = load_quotas(options.tenant_quotas);
  const SystemClock clock;
  metrics::Registry registry({}, metrics::other_names(options.common.metrics_compat));
  metrics::Health health(clock);
  const http::HealthServer http(options.common.http_address, options.common.http_port, registry, health);
  scheduler::AuditSink audit(audit_file_of(options), options.bind_clients, clock, registry);
  if (keys != nullptr) audit.watch(*keys);
  if (quotas != nullptr) audit.watch(*quotas);
  Options bound = options;
  bound.common.http_port = http.port();
  try {
    while (serve(bound, keys, quotas, {clock, registry, health, audit})) std::this_thread::sleep_for(kHandOverPause);
  } catch (const StoppedWaiting&) {
  }
  log_info("stopped");
}

void add_journal_options(ConfigParser& parser, Options& options) {
  parser.begin_group("Journal");
  parser
      .add("journal", options.journal,
           "File of the journal, on a local disk; its folder must exist. Or postgresql://USER@HOST/DATABASE: a "
           "database, in which further schedulers stand by")
      .unlogged();
  parser.add("journal-queue", options.journal_queue, "Of a journal in PostgreSQL: the queue, a schema of the database");
  parser
      .add("journal-outage-seconds", options.outage_seconds,
           "Of a journal in PostgreSQL: how long the database may not answer before this process gives way to another")
      .range(1, 3'600);
  parser.add("volatile", options.in_memory, "Keep no journal: accepted jobs are lost when this process ends");
  parser.add("backup-folder", options.backup_folder,
             "Folder for copies of the journal, better on another disk; it must exist. Empty: no copies");
  parser.add("backup-seconds", options.backup_seconds, "Time between copies; 0: only by `optserve journal backup`")
      .range(0, 1e9);
  parser.add("backups-kept", options.backups_kept, "Copies that are kept").range(1, 1e6);
  parser.add("journal-replica", options.journal_replica,
             "Folder on another disk, to which every commit of the journal is copied within about a second; it must "
             "exist. Empty: no replica");
  parser.add("audit-log", options.audit_log,
             "File of what operators do, on this machine; its folder must exist. Empty: the journal's name and .audit; "
             "none with PostgreSQL and --volatile");
  parser.add("waiting-folder", options.waiting_folder,
             "Folder on a local disk for jobs that wait behind 20,000 others, which are not in memory; it must exist. "
             "Empty: the journal's; with PostgreSQL and --volatile, all jobs are in memory then");
}

void add_options(ConfigParser& parser, Options& options) {
  parser.begin_group("Addresses");
  parser.add("bind-clients", options.bind_clients, "Address that clients connect to");
  parser.add("bind-services", options.bind_services, "Address that tokenizers, workers and converters connect to");
  add_journal_options(parser, options);
  parser.begin_group("Queue");
  parser.add("models", options.models, "Models to accept jobs for before a worker has registered them; repeatable")
      .separated_by_commas();
  parser.add("open-jobs-max", options.open_jobs_max, "Most open jobs; more are refused as busy").range(1, 100e6);
  parser.add("queue-memory-mb", options.queue_memory_mb, "Memory for prompts and outputs of open jobs, in MiB")
      .range(1, 1e6);
  parser
      .add("queue-seconds", options.queue_seconds,
           "Most work that may wait for one model, in seconds at its measured speed")
      .range(1, 1e6);
  parser.add("drain-seconds", options.drain_seconds, "How long running jobs may go on after SIGTERM").range(0, 1e6);
  parser.begin_group("Tenants");
  parser.add("tenant-jobs-max", options.tenant_jobs_max, "Most open jobs of one tenant").range(1, 100e6);
  parser
      .add("tenant-share", options.tenant_share,
           "Share of each bound that a tenant alone may fill; several leave each other room. 1: no limit")
      .range(0.01, 1);
  parser.add("tenant-weights", options.tenant_weights, "Shares of tenants, name=2,other=0.5; 1 for all others");
  parser.add("tenant-quotas", options.tenant_quotas,
             "File of what each tenant may hold and ask for (docs/security.md). It is read again when it changes");
  parser.add("prefix-affinity", options.prefix_affinity,
             "Prefer a group that was recently sent a prompt with the same beginning");
  parser.add("isolate-tenants", options.isolate_tenants,
             "Prompts of different tenants share nothing in a worker's prefix cache, where a hit shows in the time");
  parser.begin_group("Privacy");
  parser
      .add("prompt-bytes-kept", options.prompt_bytes_kept,
           "Of the text of a prompt, how many bytes are kept as long as the result, for those who ask about the job")
      .range(0, 65'536);
  keys::add_options(parser, options.keys);
  add_common_options(parser, options.common);
  confinement::add_sandbox_option(parser, options.sandbox);
  parser.begin_group("Logs, metrics and health");
  parser
      .add("slow-job-seconds", options.slow_job_seconds,
           "Log a job at its end, with its id and where its time went, if its first token took longer; 0: never")
      .range(0, 1e9);
  parser.mark_rare({"slow-job-seconds"});
  parser.add_example("optserve-scheduler --journal /var/lib/optserve/journal.db", "one scheduler for this machine");
  parser.add_example("optserve-scheduler --journal 'postgresql://optserve@db/optserve?sslmode=verify-full'",
                     "one of several, of which one leads");
  parser.add_example(
      "optserve-scheduler --bind-clients tcp://0.0.0.0:5555 --bind-services tcp://0.0.0.0:5556 --secret-key "
      "scheduler.secret --allowed-keys allowed_keys",
      "reachable from other machines, for those with an allowed key");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  ConfigParser parser("optserve-scheduler", "Holds the job queue: accepts jobs, keeps them on disk, hands them out.");
  parser.use_environment();
  add_options(parser, options);
  return run_service({argc, argv, "scheduler", parser, options.common}, [&] {
    run(options);
    return kExitOk;
  });
}
