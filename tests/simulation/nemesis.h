// Makes faults. Each run has its own choice of kinds and its own pace, so that rare combinations come up as well.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "simulation/network.h"
#include "simulation/nodes/client_node.h"
#include "simulation/nodes/scheduler_node.h"
#include "simulation/nodes/simulated_store.h"
#include "simulation/nodes/worker_node.h"

namespace optserve::simulation {

// What it acts on; owned by the world.
struct Victims {
  Network& network;
  SchedulerNode& scheduler;
  SimulatedStore& store;
  std::vector<Process*> processes;  // all, by number
  std::vector<Process*> services;   // workers and tokenizers
  std::vector<Process*> clients;
  std::vector<WorkerNode*> workers;
};

class Nemesis {
 public:
  Nemesis(Environment& environment, Victims victims);
  void start();
  // Everything heals; nothing happens afterwards.
  void stop();

 private:
  using Fault = void (Nemesis::*)();
  void choose_faults();
  void act(uint64_t unused);
  void start_again(uint64_t process);
  void end_mischief(uint64_t unused);
  void end_of_leave(uint64_t process);

  void cut();
  void partition();
  void swizzle();
  void slow_peer();
  void crash_service();
  void crash_client();
  void pause_process();
  void pause_scheduler();
  void crash_scheduler();
  void step_clock();
  void stop_scheduler();
  void hang_worker();
  void break_worker();
  void leave();
  void slow_disk();
  void full_disk();
  void mischief();
  void replay();

  template <class T>
  T& any(const std::vector<T*>& of) {
    return *of[env_.dice.below(of.size())];
  }
  void crash(Process& process);

  Environment& env_;
  Victims victims_;
  std::vector<Fault> faults_;
  Duration pace_{};
};

}  // namespace optserve::simulation
