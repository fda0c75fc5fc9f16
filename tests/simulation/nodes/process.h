// One process that talks to the scheduler: a real service, its outbox treated as the service loop does it, a clock of
// its own, and a life: it starts, is paused, crashes, starts again.
#pragma once

#include <deque>
#include <memory>
#include <string>

#include "simulation/environment.h"
#include "simulation/network.h"
#include "transport/service.h"

namespace optserve::simulation {

class Process {
 public:
  Process(Environment& environment, Network& network, transport::PortId port);
  virtual ~Process() = default;
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void start();
  void crash();
  // Its clock goes on, its messages wait.
  void pause(Instant until);
  bool is_running() const { return service_ != nullptr; }
  bool is_paused() const { return env_.now() < paused_until_; }
  Instant paused_until() const { return paused_until_; }
  void receive(protocol::Message message);
  // It has a new connection.
  void connected();

  uint32_t number = 0;  // in the network
  transport::PortId port() const { return port_; }

 protected:
  // Owned by the caller until the process ends.
  virtual std::unique_ptr<transport::Service> make_service() = 0;
  virtual void on_crash() {}
  virtual void on_turn() {}  // before each tick of the service
  virtual void on_delivered(const protocol::Message&) {}

  Instant local_now() const;
  void flush();
  uint64_t incarnation() const { return incarnation_; }
  transport::Service* service() { return service_.get(); }
  transport::Outbox& out() { return out_; }

  Environment& env_;
  Network& network_;
  const char* kind_ = "";

 private:
  void tick(uint64_t incarnation);
  void resume(uint64_t incarnation);

  const transport::PortId port_;
  std::unique_ptr<transport::Service> service_;
  transport::Outbox out_;
  uint64_t incarnation_ = 0;
  Instant paused_until_{};
  std::deque<protocol::Message> inbox_;  // while paused
  double clock_rate_ = 1;
  Duration clock_offset_{};
};

}  // namespace optserve::simulation
