#include <cstdio>

#include "base/error.h"
#include "base/first_process.h"
#include "base/log.h"
#include "base/program.h"
#include "base/shutdown.h"
#include "confinement/program_cage.h"
#include "http/health_server.h"
#include "transport/scheduler_session.h"
#include "worker/rank.h"
#include "worker/supervisor.h"

namespace {

int run_supervisor(const optserve::worker::WorkerOptions& options) {
  using namespace optserve;
  const bool has_gpu = options.device == "cuda";
  confinement::enter(has_gpu ? confinement::kGpuSupervisor : confinement::kCpuSupervisor, options.sandbox);
  metrics::Registry metrics({{"model", options.model_name()}}, metrics::other_names(options.common.metrics_compat));
  const SystemClock clock;
  metrics::Health health(clock);
  health.stamp();
  const http::HealthServer http(options.common.http_address, options.common.http_port, metrics, health);
  log_info("listening", {{"http", options.common.http_address + ":" + std::to_string(http.port())}});
  return worker::Supervisor(options, metrics, health, clock).run();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace optserve;
  worker::WorkerOptions options;
  ConfigParser parser("optserve-worker", "Runs a model on a group of processes and serves it to the scheduler.");
  parser.use_environment();
  worker::add_options(parser, options);
  if (const int status = parser.parse(argc, argv); status >= 0) return status;
  return run_reported([&] {
    if (options.rank < 0) leave_first_process();
    install_service_signals();
    if (options.rank >= 0) return worker::run_rank(options);
    start_logging("worker", options.common, parser);
    worker::complete_from_environment(options, environment_variable);
    worker::check_options(options);
    // The ranks load the keys again; this finds faults in them before the ranks start.
    if (options.node_rank == 0 && options.bench.empty()) transport::load_keys(options.keys, options.schedulers);
    if (options.nodes > 1) keys::load_group_key(options.group_key);
    return run_supervisor(options);
  });
}
