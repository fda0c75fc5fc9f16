#include "transport/scheduler_link.h"

#include <algorithm>

#include "base/log.h"

namespace optserve::transport {

SchedulerLink::SchedulerLink(protocol::Register hello, const SchedulerLinkOptions& options, Callbacks callbacks)
    : hello_(std::move(hello)), options_(options), callbacks_(std::move(callbacks)), random_(options.seed) {}

bool SchedulerLink::on_message(const protocol::Message& message, Instant now, Outbox& out) {
  if (state_ == State::kLeft) return true;
  last_heard_ = now;
  if (const auto* registered = std::get_if<protocol::Registered>(&message)) {
    on_registered(registered->term, now, out);
    return true;
  }
  if (const auto* pong = std::get_if<protocol::Pong>(&message)) {
    // A new scheduler has taken over the address, and it does not know us.
    if (is_registered() && pong->term != term_) begin_registering(now, Duration::zero());
    waiting_ = std::max<int64_t>(pong->waiting, 0);
    return true;
  }
  if (const auto* refused = std::get_if<protocol::Refused>(&message)) {
    if (refused->code == ErrorCode::kNotFound && is_registered()) {
      begin_registering(now, Duration::zero());
      return true;
    }
    log_warn("scheduler_refused",
             {{"scheduler", options_.port}, {"code", error_code_name(refused->code)}, {"message", refused->message}});
    return !is_registered();
  }
  return false;
}

bool SchedulerLink::on_undeliverable(const protocol::Message& message, Instant now) {
  if (std::holds_alternative<protocol::Register>(message)) {
    next_register_ = std::min(next_register_, now + jitter(options_.register_first));
    return true;
  }
  if (std::holds_alternative<protocol::Heartbeat>(message)) return true;  // the next one is due soon anyway
  return std::holds_alternative<protocol::Goodbye>(message);
}

void SchedulerLink::on_connected(Instant now, Outbox& out) {
  if (!is_registered()) return;  // it is about to register anyway
  begin_registering(now, Duration::zero());
  if (now >= next_register_) send_register(now, out);
}

void SchedulerLink::on_tick(Instant now, Outbox& out) {
  if (state_ == State::kLeft) return;
  if (!started_) {
    started_ = true;
    last_heard_ = now;
    next_reconnect_ = now + options_.lost_after;
    begin_registering(now, jitter(options_.register_first));
  }
  const Instant last_good = is_registered() ? last_heard_ : unregistered_since_;
  if (!reported_lost_ && now - last_good >= options_.lost_after) {
    reported_lost_ = true;
    log_warn("scheduler_lost", {{"scheduler", options_.port},
                                {"silent_ms", std::chrono::duration_cast<milliseconds>(now - last_heard_).count()}});
    if (is_registered()) begin_registering(now, Duration::zero());
    if (callbacks_.on_lost) callbacks_.on_lost(now, out);
  }
  if (state_ == State::kRegistering) {
    if (now >= next_reconnect_ && now - last_heard_ >= options_.lost_after) {
      out.reconnect(options_.port);
      next_reconnect_ = now + options_.lost_after + jitter(options_.lost_after);
    }
    if (now >= next_register_) send_register(now, out);
    return;
  }
  if (now >= next_heartbeat_) beat(now, out);
}

void SchedulerLink::beat(Instant now, Outbox& out) {
  if (!is_registered()) return;
  next_heartbeat_ = now + options_.heartbeat;
  out.send(scheduler(), protocol::Heartbeat{hello_.instance, ++heartbeat_number_, load_.steps, load_.running,
                                            load_.draining, load_.capacity});
}

void SchedulerLink::goodbye(Outbox& out) {
  if (state_ == State::kLeft) return;
  out.send(scheduler(), protocol::Goodbye{hello_.instance});
  state_ = State::kLeft;
}

void SchedulerLink::update(protocol::Register hello, Instant now, Outbox& out) {
  hello_ = std::move(hello);
  if (started_ && state_ != State::kLeft) send_register(now, out);
}

void SchedulerLink::begin_registering(Instant now, Duration first_wait) {
  state_ = State::kRegistering;
  unregistered_since_ = now;
  register_wait_ = options_.register_first;
  // Not sooner than the pace allows, so that two programs that misunderstand each other do not do so at full speed.
  next_register_ = std::max(next_register_, now + first_wait);
}

void SchedulerLink::send_register(Instant now, Outbox& out) {
  out.send(scheduler(), hello_);
  next_register_ = now + register_wait_ / 2 + jitter(register_wait_ / 2);
  register_wait_ = std::min(register_wait_ * 2, options_.register_max);
}

void SchedulerLink::on_registered(uint64_t term, Instant now, Outbox& out) {
  const bool new_term = term != term_;
  const bool was_registered = is_registered();
  state_ = State::kRegistered;
  term_ = term;
  reported_lost_ = false;
  if (!was_registered) {
    next_heartbeat_ = now + jitter(options_.heartbeat);
    waiting_ = 0;
  }
  // An answer to a repeated Register of the same session changes nothing.
  if (was_registered && !new_term) return;
  log_info("scheduler_registered", {{"scheduler", options_.port}, {"term", term}, {"new_term", new_term}});
  if (callbacks_.on_registered) callbacks_.on_registered(term, new_term, now, out);
}

Duration SchedulerLink::jitter(Duration up_to) {
  const int64_t range = std::max<int64_t>(up_to.count(), 1);
  return Duration(static_cast<int64_t>(random_() % static_cast<uint64_t>(range)));
}

}  // namespace optserve::transport
