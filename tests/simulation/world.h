// A whole system on a virtual clock in one thread: built from a seed, run to its end, checked all the way.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "simulation/nemesis.h"
#include "simulation/nodes/client_node.h"
#include "simulation/nodes/operator_node.h"
#include "simulation/nodes/scheduler_node.h"
#include "simulation/nodes/tokenizer_node.h"
#include "simulation/nodes/worker_node.h"

namespace optserve::simulation {

// A few processes, all faults; sizes, caps and kinds of faults follow from the seed.
WorldSettings small_world(uint64_t seed, Plant plant = Plant::kNone);
// Many workers and jobs, mild faults.
WorldSettings large_world(uint64_t seed, size_t workers, uint64_t jobs);

struct Outcome {
  uint64_t seed = 0;
  uint64_t hash = 0;  // of everything that happened
  uint64_t events = 0;
  double simulated_seconds = 0;
  uint64_t accepted = 0, succeeded = 0, dispatched = 0, put_back = 0, scheduler_starts = 0;
  double scheduler_seconds = 0;  // large worlds: CPU time in the scheduler's code
  uint64_t scheduler_calls = 0, longest_call_ns = 0;
  size_t gated_max = 0;
  std::optional<Invariant> broken;
  std::string what;   // was broken
  std::string trace;  // the last lines before
};

Outcome run_world(const WorldSettings& settings);

class World {
 public:
  World(const WorldSettings& settings, metrics::Registry& registry);
  Outcome run();

 private:
  void build_clients();
  void run_to_end();
  bool is_done() const;
  void heal(uint64_t unused);
  void check_use(uint64_t unused);
  std::string unfinished() const;
  void fill(Outcome& outcome) const;

  Environment env_;
  Ledger ledger_;
  Network network_;
  SimulatedStore store_;
  SchedulerNode scheduler_;
  std::vector<std::unique_ptr<Process>> processes_;
  std::vector<WorkerNode*> workers_;
  std::vector<ClientNode*> clients_;
  std::vector<BulkClientNode*> bulk_clients_;
  std::vector<OperatorNode*> operators_;
  std::unique_ptr<Nemesis> nemesis_;
  uint64_t next_job_ = 0;         // of the bulk clients
  std::vector<InstanceId> idle_;  // workers without work though jobs wait, at the last look
};

}  // namespace optserve::simulation
