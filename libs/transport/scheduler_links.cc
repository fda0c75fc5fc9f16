#include "transport/scheduler_links.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/limits.h"

namespace optserve::transport {

SchedulerLinks::SchedulerLinks(const protocol::Register& hello, const SchedulerLinkOptions& options,
                               Callbacks callbacks)
    : first_(options.port), callbacks_(std::move(callbacks)) {
  check(options.schedulers >= 1 && static_cast<size_t>(options.schedulers) <= limits::kSchedulersMax,
        "a service has 1 to kSchedulersMax schedulers");
  for (int i = 0; i < options.schedulers; ++i) {
    SchedulerLinkOptions each = options;
    each.port = first_ + i;
    each.seed = options.seed + static_cast<uint64_t>(i);  // so that heartbeats are not all due at the same moment
    SchedulerLink::Callbacks calls;
    calls.on_registered = [this, port = each.port](uint64_t, bool new_term, Instant now, Outbox& out) {
      if (callbacks_.on_registered) callbacks_.on_registered(port, new_term, now, out);
    };
    calls.on_lost = [this, port = each.port](Instant now, Outbox& out) {
      if (callbacks_.on_lost) callbacks_.on_lost(port, now, out);
    };
    links_.emplace_back(hello, each, std::move(calls));
  }
}

size_t SchedulerLinks::index(PortId scheduler) const {
  const auto index = static_cast<size_t>(scheduler - first_);
  check(scheduler >= first_ && index < links_.size(), "a port without a scheduler");
  return index;
}

bool SchedulerLinks::on_message(const Peer& from, const protocol::Message& message, Instant now, Outbox& out) {
  return of(from.port).on_message(message, now, out);
}

bool SchedulerLinks::on_undeliverable(const Peer& to, const protocol::Message& message, Instant now) {
  return of(to.port).on_undeliverable(message, now);
}

void SchedulerLinks::set_load(const SchedulerLink::Load& load) {
  for (SchedulerLink& link : links_) link.set_load(load);
}

void SchedulerLinks::on_tick(Instant now, Outbox& out) {
  for (SchedulerLink& link : links_) link.on_tick(now, out);
}

void SchedulerLinks::beat(Instant now, Outbox& out) {
  for (SchedulerLink& link : links_) link.beat(now, out);
}

void SchedulerLinks::goodbye(Outbox& out) {
  for (SchedulerLink& link : links_) link.goodbye(out);
}

bool SchedulerLinks::is_registered() const {
  return std::any_of(links_.begin(), links_.end(), [](const SchedulerLink& link) { return link.is_registered(); });
}

bool SchedulerLinks::has_left() const {
  return std::all_of(links_.begin(), links_.end(), [](const SchedulerLink& link) { return link.has_left(); });
}

}  // namespace optserve::transport
