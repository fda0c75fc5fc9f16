// The scheduler's process: the real service, the gate that holds back what waits for the journal, and a life of its
// own. What arrives within a moment is handled together, as in the service loop.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "scheduler/scheduler_service.h"
#include "simulation/ledger.h"
#include "simulation/network.h"
#include "simulation/nodes/simulated_store.h"

namespace optserve::simulation {

class SchedulerNode final : public SimulatedStore::Listener {
 public:
  SchedulerNode(Environment& environment, Network& network, SimulatedStore& store, Ledger& ledger);

  void start();
  void crash(Duration downtime);
  void stop_in_order(Duration downtime);
  void pause(Instant until);
  // The wall clock jumps.
  void move_wall_clock(int64_t by_ms) { wall_offset_ms_ += by_ms; }
  void let_caps_be_small(bool small) { small_caps_ = small; }

  void receive(const transport::Peer& from, protocol::Message message);
  void connection_ended(const transport::Peer& peer);
  bool accepts_connections() const { return service_ != nullptr && !is_paused(); }
  bool is_running() const { return service_ != nullptr; }
  const scheduler::SchedulerService* service() const { return service_.get(); }
  // Turns a worker's old message into lies under leases that have ended; false: none has.
  bool make_stale(protocol::Tokens& tokens, uint64_t present_term) const;
  uint64_t term() const { return term_; }
  Instant local_now() const override;

  void on_durable() override;
  void on_answers_ready() override;
  int64_t wall_offset_ms() const override { return wall_offset_ms_; }

  // Time that the service's code took on this machine, and its calls.
  double busy_seconds() const { return static_cast<double>(busy_ns_) * 1e-9; }
  uint64_t calls() const { return calls_; }
  uint64_t longest_call_ns() const { return longest_ns_; }
  size_t gated_max() const { return gated_max_; }

 private:
  bool is_paused() const { return env_.now() < paused_until_; }
  int64_t wall_ms() const;
  void tick(uint64_t life);
  void flush(uint64_t life);
  void resume(uint64_t life);
  void restart(uint64_t life);
  void want_flush();
  void send(transport::Outgoing item);
  void send_now(transport::Outgoing item);
  void end_process(Duration downtime);
  void observe_state();
  void before(const protocol::Message& message);
  void after(const transport::Peer& from, const protocol::GetGroup& asked);
  void check_group(const transport::Outgoing& item);
  void check_introduced(const transport::Peer& to, const protocol::Message& message);
  void unfence(transport::Peer& from, protocol::Tokens& tokens) const;
  scheduler::SchedulerOptions options();
  template <class F>
  void call(F&& body);

  Environment& env_;
  Network& network_;
  SimulatedStore& store_;
  Ledger& ledger_;
  std::unique_ptr<scheduler::SchedulerService> service_;
  transport::Outbox out_;
  std::deque<transport::Outgoing> gated_;
  std::deque<std::pair<transport::Peer, std::optional<protocol::Message>>> inbox_;  // while paused; nullopt: its end
  uint64_t life_ = 0;
  uint64_t term_ = 0;
  bool flush_planned_ = false;
  bool small_caps_ = false;
  Instant paused_until_{};
  int64_t wall_offset_ms_ = 0;
  uint64_t busy_ns_ = 0, calls_ = 0, longest_ns_ = 0;
  size_t gated_max_ = 0;
  uint64_t commits_ = 0, ticks_ = 0;
  // Jobs that a client has asked to attach, or was told of.
  std::set<std::pair<transport::Peer, JobId>> introduced_;
  std::optional<transport::Outgoing> late_;  // kLateReply: waits until something overtakes it
  // What answers to a client's requests must say.
  std::multimap<std::pair<transport::Peer, uint64_t>, protocol::GroupStatus> counted_groups_;
};

}  // namespace optserve::simulation
