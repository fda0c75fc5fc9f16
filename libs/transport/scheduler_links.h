// A service's sessions with all of its schedulers: one SchedulerLink for each, on its own port. What happens to one
// scheduler (silence, a restart, a refusal) concerns only its link and not the others.
#pragma once

#include <functional>
#include <vector>

#include "transport/scheduler_link.h"

namespace optserve::transport {

class SchedulerLinks {
 public:
  // Like SchedulerLink::Callbacks, with the port of the scheduler concerned.
  struct Callbacks {
    std::function<void(PortId scheduler, bool new_term, Instant now, Outbox& out)> on_registered;
    std::function<void(PortId scheduler, Instant now, Outbox& out)> on_lost;
  };

  SchedulerLinks(const protocol::Register& hello, const SchedulerLinkOptions& options, Callbacks callbacks);
  SchedulerLinks(const SchedulerLinks&) = delete;  // the links call back into this object
  SchedulerLinks& operator=(const SchedulerLinks&) = delete;

  // Like those of SchedulerLink, for the scheduler behind `from.port`, `to.port` and `scheduler`.
  bool on_message(const Peer& from, const protocol::Message& message, Instant now, Outbox& out);
  bool on_undeliverable(const Peer& to, const protocol::Message& message, Instant now);
  void on_connected(PortId scheduler, Instant now, Outbox& out) { of(scheduler).on_connected(now, out); }
  // Sets the load of all links.
  void set_load(const SchedulerLink::Load& load);
  void on_tick(Instant now, Outbox& out);
  void beat(Instant now, Outbox& out);
  void goodbye(Outbox& out);

  size_t size() const { return links_.size(); }
  PortId port(size_t index) const { return first_ + static_cast<PortId>(index); }
  size_t index(PortId scheduler) const;
  // The link of one scheduler. The port must be that of one.
  SchedulerLink& of(PortId scheduler) { return links_[index(scheduler)]; }
  const SchedulerLink& of(PortId scheduler) const { return links_[index(scheduler)]; }

  bool is_registered() const;  // with at least one
  bool has_left() const;       // all

 private:
  PortId first_;
  Callbacks callbacks_;
  std::vector<SchedulerLink> links_;
};

}  // namespace optserve::transport
