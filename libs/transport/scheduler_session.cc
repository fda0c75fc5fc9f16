#include "transport/scheduler_session.h"

#include "base/build_info.h"
#include "base/limits.h"

namespace optserve::transport {

protocol::Register new_registration() {
  protocol::Register hello;
  hello.instance = InstanceId::random();
  hello.name = host_and_pid();
  hello.build = build_version();
  return hello;
}

SchedulerLinkOptions link_options(const protocol::Register& hello) {
  SchedulerLinkOptions link;
  link.seed = std::hash<Id128>{}(hello.instance);
  return link;
}

void serve_scheduler(Service& service, const SessionSettings& settings, Registry& metrics, Health& health) {
  const SystemClock clock;
  ServiceLoop loop(service, clock, metrics);
  PortOptions port;
  port.message_bytes_max = limits::kInternalMessageBytesMax;
  const PortId id = loop.connect(settings.scheduler, port);
  check(id == SchedulerLinkOptions{}.port, "the scheduler's port is the loop's first");
  loop.set_health(&health);
  if (settings.watch) settings.watch(loop);
  health.started = true;
  loop.run(settings.drain_deadline);
}

}  // namespace optserve::transport
