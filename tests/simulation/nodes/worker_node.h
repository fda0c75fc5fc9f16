// A worker group: the real session and planner on a device whose steps only take time. It may hang, or fail in a step.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "batching/planner.h"
#include "simulation/nodes/process.h"
#include "worker/engine_port.h"
#include "worker/metrics.h"
#include "worker/worker_service.h"

namespace optserve::simulation {

// The engine thread of one start of a worker; its steps are events of the node's.
class SimulatedEngine final : public worker::EnginePort {
 public:
  SimulatedEngine(Environment& environment, const batching::PlannerOptions& options);
  void add(batching::SequenceRequest request) override { added_.push_back(std::move(request)); }
  void cancel(batching::SequenceId id) override { cancelled_.push_back(id); }
  uint64_t steps() const override { return steps_; }

  // Takes what was added and cancelled, and plans what may run; events of what was refused go to `events`.
  void plan(std::vector<batching::SequenceEvent>& events);
  bool has_step() const { return !planned_.empty(); }
  Duration step_time() const;
  // The oldest planned step is done.
  void finish_step(std::vector<batching::SequenceEvent>& events, bool finite);

 private:
  struct Slot {
    int32_t prompt_tokens = 0;
    sampling::SamplingParams sampling;
  };
  Environment& env_;
  batching::Planner planner_;
  std::vector<Slot> slots_;
  std::vector<batching::SequenceRequest> added_;
  std::vector<batching::SequenceId> cancelled_;
  std::deque<batching::StepPlan> planned_;
  uint64_t steps_ = 0;
};

struct WorkerShape {
  int32_t slots = 4;
  int32_t leases = 5;  // a quarter more than it runs
  int32_t blocks = 128;
  int32_t step_tokens = 128;
};

class WorkerNode final : public Process {
 public:
  WorkerNode(Environment& environment, Network& network, const WorkerShape& shape,
             const worker::WorkerMetrics& metrics);

  void hang(Instant until);
  void break_down(Instant until) { broken_until_ = until; }
  void heal();
  void leave();  // in order: finishes what it holds, says goodbye
  std::string name() const { return "worker-" + std::to_string(number); }

 private:
  std::unique_ptr<transport::Service> make_service() override;
  void on_crash() override;
  void on_turn() override;
  void on_delivered(const protocol::Message&) override;
  void wake(uint64_t incarnation);
  void step_done(uint64_t incarnation);
  void publish(std::vector<batching::SequenceEvent> events);
  void plan_next();

  WorkerShape shape_;
  worker::WorkerMetrics metrics_;
  std::unique_ptr<SimulatedEngine> engine_;
  worker::WorkerService* worker_ = nullptr;  // the service, while it runs
  bool stepping_ = false, waking_ = false;
  Instant hung_until_{}, broken_until_{};
};

}  // namespace optserve::simulation
