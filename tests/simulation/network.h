// The connections between every process and the scheduler, as ZeroMQ gives them: first in, first out with a random
// delay; what is under way when one ends is lost, in either direction; each end learns of the end in its own time. On
// request it does worse: single messages are lost, repeated and overtaken.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "simulation/environment.h"
#include "transport/service.h"

namespace optserve::simulation {

inline constexpr seconds kConnectionLife{4};  // of silence, by ZeroMQ's own heartbeats
inline constexpr int kFlushRounds = 4;        // of one turn, as in the service loop

class Process;
class SchedulerNode;

enum class Direction : uint8_t { kUp, kDown };  // to the scheduler, from it
enum class Sent : uint8_t { kYes, kSlow, kGone };
enum class Cut : uint8_t { kBothKnow, kProcessKnows, kSchedulerKnows };  // the other end learns it by silence

// Probabilities for each message, beyond what ZeroMQ does.
struct Mischief {
  double loss = 0, repetition = 0, overtaking = 0, long_delay = 0;
};

class Network {
 public:
  explicit Network(Environment& environment) : env_(environment) {}
  void add(Process& process);  // its number is its place
  void set_scheduler(SchedulerNode& scheduler) { scheduler_ = &scheduler; }

  // A process wants a connection, until it has one.
  void connect(Process& process);
  // The process drops its connection: it ends, or its service asked for another.
  void disconnect(Process& process);
  bool up(Process& from, protocol::Message message);
  Sent down(const transport::Peer& to, protocol::Message message);

  // Faults.
  void cut(uint32_t process, Cut how);
  void block(uint32_t process, Direction direction, Instant until);
  void slow(uint32_t process, Instant until) { links_[process].slow_until = until; }
  void scheduler_gone();             // its process ended
  void scheduler_silent_for_long();  // it is paused for longer than connections live
  void process_silent_for_long(uint32_t process);
  void heal();
  Mischief mischief;
  // The last Tokens that each process sent, for those who repeat them later.
  void remember_tokens(bool wanted) { remember_ = wanted; }
  void replay_old_tokens(uint64_t present_term);

 private:
  struct Connection {
    uint32_t process = 0;
    bool process_open = true, scheduler_open = true;
    Instant last_up{}, last_down{};
  };
  struct Link {
    Process* process = nullptr;
    uint64_t connection = 0;  // the process's present one; 0: none
    bool connecting = false;
    Instant blocked[2]{};
    Instant slow_until{};
  };
  struct Flight {
    protocol::Message message;
    uint64_t connection = 0;
    uint32_t process = 0;
    Direction direction = Direction::kUp;
    bool survives = false;  // was received before the connection ended, and waits to be read
  };

  void try_connect(uint64_t process);
  void arrive(uint64_t flight);
  void end_of_silence(uint64_t connection);
  void check_block(uint64_t process);
  void close_both(uint64_t connection);
  void scheduler_sees_end(uint64_t connection);
  void tell_end(uint64_t connection);
  void forget_if_closed(uint64_t connection);
  void process_sees_end(uint64_t connection);
  void send(uint64_t connection, Direction direction, protocol::Message message);
  void launch(Flight flight, Instant due);
  static uint64_t connection_of(const transport::Peer& peer);
  transport::Peer peer_of(uint64_t connection) const;
  void tamper(Flight& flight);

  Environment& env_;
  SchedulerNode* scheduler_ = nullptr;
  std::vector<Link> links_;
  std::unordered_map<uint64_t, Connection> connections_;
  std::unordered_map<uint64_t, uint32_t> untold_ends_;  // the process of each, until the scheduler is told
  uint64_t next_connection_ = 1;
  std::vector<Flight> flights_;
  std::vector<uint64_t> free_flights_;
  bool remember_ = false;
  std::vector<Flight> remembered_;
};

}  // namespace optserve::simulation
