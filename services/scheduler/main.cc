// optserve-scheduler: holds the job queue. Clients connect to one port, tokenizers, workers and converters to another.
#include <cstdio>
#include <exception>

#include "base/config.h"
#include "base/log.h"
#include "base/shutdown.h"
#include "metrics/http_server.h"
#include "scheduler/scheduler_service.h"
#include "transport/service_loop.h"

namespace {

using namespace optserve;

struct Options {
  CommonOptions common;
  std::string bind_clients = "tcp://127.0.0.1:5555";
  std::string bind_services = "tcp://127.0.0.1:5556";
  std::string journal = "optserve-journal.db";
  bool in_memory = false;
  std::vector<std::string> models;
  int64_t drain_seconds = 60;
};

void run(const Options& options) {
  install_shutdown_signals();
  const SystemClock clock;
  journal::Recovery recovery;
  recovery.term = 1;
  std::unique_ptr<journal::Journal> disk;
  journal::MemoryStore memory;
  if (options.in_memory) {
    log_warn("volatile", {{"meaning", "accepted jobs do not survive this process"}});
    recovery.term = static_cast<uint64_t>(clock.wall_ms());  // grows from start to start, as fencing needs
  } else {
    disk = journal::Journal::open({.path = options.journal}, recovery);
  }
  journal::JobStore& store = disk ? static_cast<journal::JobStore&>(*disk) : memory;

  Registry registry;
  Health health;
  scheduler::SchedulerOptions settings;
  settings.start = clock.now();
  settings.start_wall_ms = clock.wall_ms();
  settings.seed = std::hash<Id128>()(Id128::random());
  settings.models = options.models;
  scheduler::SchedulerService service(settings, store, std::move(recovery), registry);

  transport::ServiceLoop loop(service, clock, registry);
  loop.set_durability({disk ? disk->event_fd() : -1, [&store] { return store.durable(); }});
  if (disk) loop.watch(disk->answers_fd(), [&](Instant now, auto& out) { service.on_answers(now, out); });
  loop.set_health(&health);
  loop.watch(shutdown_fd(), [&](Instant, auto&) {
    health.ready = false;  // draining: no new work
    loop.unwatch(shutdown_fd());
  });
  settings.clients_port =
      loop.bind(options.bind_clients, {.message_bytes_max = limits::kClientMessageBytesMax, .name = "clients"});
  settings.services_port = loop.bind(options.bind_services, {.name = "services"});
  health.stamp();
  health.started = health.ready = true;
  const HttpServer http(options.common.http_address, options.common.http_port, registry, health);
  log_info("ready", {{"clients", loop.bound_endpoint(settings.clients_port)},
                     {"services", loop.bound_endpoint(settings.services_port)},
                     {"http_port", http.port()}});
  loop.run(seconds(options.drain_seconds));
  health.ready = false;
  service.give_back_leases();
  log_info("stopped");
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  ConfigParser parser("optserve-scheduler", "Holds the job queue: accepts jobs, keeps them on disk, hands them out.");
  parser.add("bind-clients", options.bind_clients, "Address that clients connect to");
  parser.add("bind-services", options.bind_services, "Address that tokenizers, workers and converters connect to");
  parser.add("journal", options.journal, "File of the journal, on a local disk; its folder must exist");
  parser.add("volatile", options.in_memory, "Keep no journal: accepted jobs are lost when this process ends");
  parser.add("models", options.models, "Models to accept jobs for before a worker has registered them");
  parser.add("drain-seconds", options.drain_seconds, "How long running jobs may go on after SIGTERM");
  add_common_options(parser, options.common);
  if (const int status = parser.parse(argc, argv); status >= 0) return status;
  try {
    start_logging("scheduler", options.common, parser);
    run(options);
    return 0;
  } catch (const std::exception& error) {
    log_error("failed", {{"error", error.what()}});
    std::fprintf(stderr, "optserve-scheduler: %s\n", error.what());
    return 1;
  }
}
