// Rank 0's engine loop on a thread of its own: takes new generations, plans, leads the group through steps, posts
// events. add() and cancel() come from the message thread; events go back through take_events(), announced by
// event_fd().
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "batching/planner.h"
#include "worker/engine_port.h"

namespace optserve::worker {

class EngineThread final : public EnginePort {
 public:
  using Step = std::function<batching::StepResult(const batching::StepPlan&)>;

  // `step` executes a plan on the whole group; it runs on the engine thread.
  EngineThread(const batching::PlannerOptions& options, Step step);
  ~EngineThread() override;  // stops after the step in progress

  void add(batching::SequenceRequest request) override;
  void cancel(batching::SequenceId id) override;
  uint64_t steps() const override { return steps_.load(); }

  int event_fd() const { return event_fd_; }
  // Everything since the last call. Rethrows what ended the engine thread, if something did.
  std::vector<EngineEvent> take_events();
  batching::PlannerStats stats() const;
  void stop();

 private:
  void run();
  void take_commands(std::vector<EngineEvent>& events);
  void publish(std::vector<EngineEvent> events);
  bool wait_for_commands();

  batching::Planner planner_;  // engine thread only
  Step step_;
  int event_fd_ = -1;
  std::atomic<uint64_t> steps_{0};

  mutable std::mutex mutex_;  // guards everything below
  std::condition_variable commands_changed_;
  std::vector<batching::SequenceRequest> added_;
  std::vector<batching::SequenceId> cancelled_;
  std::vector<EngineEvent> events_;
  batching::PlannerStats stats_;
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace optserve::worker
