// A service's session with the scheduler, the same for tokenizers, worker groups and converters: register, heartbeat,
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
    // Nothing heard for lost_after. Once per loss. Work may go on for as long as the service thinks it useful.
    std::function<void(Instant now, Outbox& out)> on_lost;
  };

  // What a heartbeat reports.
  struct Load {
    uint64_t steps = 0;
    int32_t running = 0;
    bool draining = false;
  };

  SchedulerLink(protocol::Register hello, const SchedulerLinkOptions& options, Callbacks callbacks);

  // For every message from the scheduler's port, which proves that it lives. True: it was the link's own (Registered,
  // Pong, or the refusal of a sender it does not know) and needs no more attention.
  bool on_message(const protocol::Message& message, Instant now, Outbox& out);
  // For every message that could not be handed over. True: it was the link's own and will be repeated.
  bool on_undeliverable(const protocol::Message& message, Instant now);
  void on_tick(Instant now, Outbox& out);
  // Leaves at once; nothing is sent afterwards.
  void goodbye(Outbox& out);
  // Changes what is registered (a model was loaded) and tells the scheduler.
  void update(protocol::Register hello, Instant now, Outbox& out);

  void set_load(const Load& load) { load_ = load; }
  bool is_registered() const { return state_ == State::kRegistered; }
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
  uint64_t heartbeat_number_ = 0;
  bool started_ = false;  // the first tick came
  bool reported_lost_ = true;
  Duration register_wait_{};
  Instant next_register_{}, next_heartbeat_{}, last_heard_{}, next_reconnect_{};
};

}  // namespace optserve::transport
