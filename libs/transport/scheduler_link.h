// A service's session with one scheduler, the same for tokenizers, worker groups and converters: register, heartbeat,
// notice silence, register again. Holds no socket; the service hands it what arrives and gives it its ticks.
//
//   registered  ──5 s of silence──►  lost  ──Registered──►  registered
//   (Registered of another term: the scheduler restarted, everything leased before is void)
#pragma once

#include <cstdint>
#include <functional>
#include <random>

#include "transport/service.h"

namespace optserve::transport {

struct SchedulerLinkOptions {
  PortId port = 0;                           // the DEALER that is connected to the scheduler
  int schedulers = 1;                        // of a SchedulerLinks: they have the ports from `port` on
  Duration heartbeat = milliseconds(1'000);  // between heartbeats
  Duration lost_after = milliseconds(5'000);
  Duration register_first = milliseconds(200);  // waits between attempts to register: doubling, with full jitter
  Duration register_max = milliseconds(2'000);
  uint64_t seed = 0;  // of the jitter; different in each process
};

class SchedulerLink {
 public:
  // Called from on_message() and on_tick(), in which the service may send with the Outbox it passed.
  struct Callbacks {
    // Registered. `new_term`: with a scheduler other than the one before (always true the first time); leases of other
    // terms are void. false: the same scheduler had forgotten or lost us, and revokes what it leased elsewhere.
    std::function<void(uint64_t term, bool new_term, Instant now, Outbox& out)> on_registered;
    // For lost_after nothing was heard, or the scheduler did not take us back. Once per loss. What it leased is of no
    // use: it leases it elsewhere, or, after a restart, anew.
    std::function<void(Instant now, Outbox& out)> on_lost;
  };

  // What a heartbeat reports.
  struct Load {
    uint64_t steps = 0;
    int32_t running = 0;
    bool draining = false;
    int32_t capacity = 0;  // as in protocol::Heartbeat
  };

  SchedulerLink(protocol::Register hello, const SchedulerLinkOptions& options, Callbacks callbacks);

  // For every message from the scheduler's port, which proves that it lives. True: it was the link's own (Registered,
  // Pong, or the refusal of a sender it does not know) and needs no more attention.
  bool on_message(const protocol::Message& message, Instant now, Outbox& out);
  // For every message that could not be handed over. True: it was the link's own and will be repeated.
  bool on_undeliverable(const protocol::Message& message, Instant now);
  void on_tick(Instant now, Outbox& out);
  // Sends a heartbeat at once, for a load that must not wait for the next one. Nothing while not registered.
  void beat(Instant now, Outbox& out);
  // Leaves at once; nothing is sent afterwards.
  void goodbye(Outbox& out);
  // Changes what is registered (a model was loaded) and tells the scheduler.
  void update(protocol::Register hello, Instant now, Outbox& out);

  void set_load(const Load& load) { load_ = load; }
  bool is_registered() const { return state_ == State::kRegistered; }
  bool has_left() const { return state_ == State::kLeft; }
  // Jobs that wait at the scheduler, as its last Pong said; 0 while not registered.
  int64_t waiting() const { return is_registered() ? waiting_ : 0; }
  uint64_t term() const { return term_; }  // 0: never registered
  const InstanceId& instance() const { return hello_.instance; }

 private:
  enum class State { kRegistering, kRegistered, kLeft };

  Peer scheduler() const { return {options_.port, {}}; }
  void begin_registering(Instant now, Duration first_wait);
  void send_register(Instant now, Outbox& out);
  void on_registered(uint64_t term, Instant now, Outbox& out);
  Duration jitter(Duration up_to);

  protocol::Register hello_;
  SchedulerLinkOptions options_;
  Callbacks callbacks_;
  Load load_;
  State state_ = State::kRegistering;
  std::mt19937_64 random_;
  uint64_t term_ = 0;
  int64_t waiting_ = 0;
  uint64_t heartbeat_number_ = 0;
  bool started_ = false;  // the first tick came
  bool reported_lost_ = true;
  Duration register_wait_{};
  Instant next_register_{}, next_heartbeat_{}, last_heard_{}, next_reconnect_{};
  Instant unregistered_since_{};
};

}  // namespace optserve::transport
