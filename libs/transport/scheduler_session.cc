#include "transport/scheduler_session.h"

#include <algorithm>

#include "base/build_info.h"
#include "base/error.h"
#include "base/input_check.h"
#include "base/limits.h"
#include "base/program.h"
#include "transport/locality.h"

namespace optserve::transport {

protocol::Register new_registration(const std::string& name) {
  protocol::Register hello;
  hello.instance = InstanceId::random();
  hello.name = name.empty() ? host_and_pid() : name;
  hello.build = build_version();
  return hello;
}

void check_schedulers(const std::vector<std::string>& schedulers) {
  const Status count = check_range("number of schedulers", schedulers.size(), 1, limits::kSchedulersMax);
  if (!count.ok()) throw ConfigurationError(count.refusal().message);
  for (auto at = schedulers.begin(); at != schedulers.end(); ++at) {
    if (std::find(schedulers.begin(), at, *at) != at) {
      throw ConfigurationError("scheduler '" + *at + "' is given twice");
    }
  }
}

SchedulerLinkOptions link_options(const protocol::Register& hello, const std::vector<std::string>& schedulers) {
  check_schedulers(schedulers);
  SchedulerLinkOptions link;
  link.schedulers = static_cast<int>(schedulers.size());
  link.seed = std::hash<Id128>{}(hello.instance);
  return link;
}

std::shared_ptr<keys::ClientKeys> load_keys(const keys::ClientKeyOptions& options,
                                            const std::vector<std::string>& schedulers) {
  auto keys = keys::load(options);
  if (keys != nullptr || options.insecure) return keys;
  for (const std::string& scheduler : schedulers) check_locality(scheduler, Side::kConnects);
  return keys;
}

void serve_scheduler(Service& service, const SessionSettings& settings, metrics::Registry& metrics,
                     metrics::Health& health) {
  ServiceLoop loop(service, health.clock, metrics);
  for (size_t i = 0; i < settings.schedulers.size(); ++i) {
    PortOptions port;
    port.message_bytes_max = limits::kInternalMessageBytesMax;
    port.name = "scheduler-" + std::to_string(i);
    port.is_watched = true;
    port.client_keys = settings.keys;
    port.is_insecure = settings.is_insecure;
    const PortId id = loop.connect(settings.schedulers[i], port);
    check(id == SchedulerLinkOptions{}.port + static_cast<PortId>(i), "the schedulers have the loop's first ports");
  }
  loop.set_health(&health);
  if (settings.watch) settings.watch(loop);
  health.started = true;
  health.set_problem("not registered with a scheduler yet");
  loop.run(settings.drain_deadline);
}

}  // namespace optserve::transport
