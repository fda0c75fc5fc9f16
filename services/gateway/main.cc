// optserve-gateway: the HTTP API in front of the schedulers.
#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <string_view>
#include <vector>

#include "base/config.h"
#include "base/exit_status.h"
#include "base/log.h"
#include "base/program.h"
#include "base/shutdown.h"
#include "confinement/program_cage.h"
#include "gateway/access/new_key.h"
#include "gateway/service/gateway.h"
#include "gateway/service/options.h"
#include "http/health_server.h"
#include "model_text/served_model.h"

namespace {

using namespace optserve;

std::unique_ptr<http_api::Models> load_models(const gateway::GatewayOptions& options, const Clock& clock) {
  return std::make_unique<http_api::Models>(model_text::load_served_models(options.models), clock.wall_ms() / 1'000);
}

// Each connection needs a descriptor, and the usual limit is 1,024 until a process raises it.
void raise_descriptor_limit(int64_t connections_max) {
  constexpr rlim_t kOthers = 256;  // files, schedulers, health endpoints
  const rlim_t wanted = static_cast<rlim_t>(connections_max) + kOthers;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted) {
    log_warn("few_descriptors", {{"open_files_max", limit.rlim_cur}, {"wanted", wanted}});
  }
}

void wait_for_signal() {
  pollfd signal{shutdown_fd(), POLLIN, 0};
  while (!shutdown_requested()) poll(&signal, 1, -1);
}

void run(const gateway::GatewayOptions& options) {
  keys::check_command_line();
  raise_descriptor_limit(options.connections_max);
  confinement::enter(options.files.empty() ? confinement::kGateway : confinement::kGatewayWithFiles, options.sandbox);
  metrics::Registry registry({}, metrics::other_names(options.common.metrics_compat));
  const SystemClock clock;
  metrics::Health health(clock);
  health.stamp();
  const http::HealthServer probes(options.common.http_address, options.common.http_port, registry, health);
  auto batch_models = options.files.empty() ? nullptr : load_models(options, clock);
  gateway::Gateway gateway(options, load_models(options, clock), std::move(batch_models), registry, health, clock);
  log_info("ready", {{"api", options.http},
                     {"api_port", gateway.port()},
                     {"http", options.common.http_address + ":" + std::to_string(probes.port())}});
  wait_for_signal();
  log_info("draining");
  gateway.drain(milliseconds(options.drain_ms), shutdown_forced);
  log_info("stopped");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "new-key") {
    return gateway::run_new_key(argc - 1, argv + 1, std::cout, std::cerr);
  }
  gateway::GatewayOptions options;
  ConfigParser parser("optserve-gateway", "Serves OpenAI's HTTP API in front of the schedulers.");
  parser.use_environment();
  gateway::add_options(parser, options);
  return run_service({argc, argv, "gateway", parser, options.common}, [&] {
    run(options);
    return kExitOk;
  });
}
