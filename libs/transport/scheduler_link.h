// A service's session with one scheduler, which is the same for tokenizers, worker groups and converters: it registers,
// sends heartbeats, notices silence, and registers again. It has no socket: the service passes it the messages that
// arrive, and its ticks.
//
//   registered  ──5 s of silence──►  lost  ──Registered──►  registered
//   (Registered of another term: the scheduler has restarted, and everything leased before is void)
#pragma once

#include <cstdint>
#include <functional>
#include <random>

#include "transport/service.h"

namespace optserve::transport {

struct SchedulerLinkOptions {
  PortId port = 0;                           // the DEALER that is connected to the scheduler
  int schedulers = 1;                        // for SchedulerLinks: their ports are `port` and the following ones
  Duration heartbeat = milliseconds(1'000);  // between heartbeats
  Duration lost_after = milliseconds(5'000);
  Duration register_first = milliseconds(200);  // longest wait between attempts to register: doubles, with full jitter
  Duration register_max = milliseconds(2'000);
  uint64_t seed = 0;  // of the jitter; different in each process
};

class SchedulerLink {
 public:
  // Called from on_message() and on_tick(). The service may send with the Outbox that it passed to these.
  struct Callbacks {
    // The service is registered. `new_term` is true the first time, and after the scheduler has restarted: leases of
    // other terms are void. It is false if the same scheduler had lost the service and takes it back; the scheduler
    // then revokes what it has meanwhile leased to others.
    std::function<void(uint64_t term, bool new_term, Instant now, Outbox& out)> on_registered;
    // Nothing was heard from the scheduler for `lost_after`, or it did not take the service back. Called once per loss.
    // The work that it has leased has become useless: the scheduler leases it to others, or again after a restart.
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

  // To be called with every message from the scheduler's port, since each shows that the scheduler is alive. True if
  // the message was for the link itself (Registered, Pong, or the refusal of an unknown sender), so that nothing else
  // is to be done.
  bool on_message(const protocol::Message& message, Instant now, Outbox& out);
  // To be called with every message that could not be delivered. True if it was a message of the link itself, which
  // then repeats it.
  bool on_undeliverable(const protocol::Message& message, Instant now);
  // To be called when the port has a new connection. The scheduler does not know us by it: the service registers again
  // at once, before the scheduler gives up what it has leased.
  void on_connected(Instant now, Outbox& out);
  void on_tick(Instant now, Outbox& out);
  // Sends a heartbeat at once, for a load that must not wait for the next heartbeat. Does nothing while not registered.
  void beat(Instant now, Outbox& out);
  // Says goodbye; nothing is sent afterwards.
  void goodbye(Outbox& out);
  // Changes what is registered (a model was loaded) and tells the scheduler.
  void update(protocol::Register hello, Instant now, Outbox& out);

  void set_load(const Load& load) { load_ = load; }
  bool is_registered() const { return state_ == State::kRegistered; }
  bool has_left() const { return state_ == State::kLeft; }
  // The number of jobs that wait at the scheduler, from its last Pong; 0 while not registered.
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
