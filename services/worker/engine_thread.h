// The engine loop of rank 0, on a thread of its own: it takes new generations, plans steps, leads the group through
// them and posts events. The next step is planned and started while the present one runs. add() and cancel() are called
// on the message thread, which takes the events with take_events() when event_fd() is readable.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "batching/draft_source.h"
#include "worker/engine_port.h"

namespace optserve::worker {

// Executes steps on the whole group; called on the engine thread. finish() waits for the oldest step that was started
// and not finished. There are at most as many of those as the planner plans ahead.
struct GroupSteps {
  std::function<void(const batching::StepPlan&)> start;
  std::function<batching::StepResult()> finish;
};

class EngineThread final : public EnginePort {
 public:
  // `drafts`, which may be null, guesses where texts do not repeat themselves. It is called on the engine thread.
  EngineThread(const batching::PlannerOptions& options, GroupSteps steps, batching::DraftSource* drafts = nullptr);
  ~EngineThread() override;  // stops after the steps in progress

  void add(batching::SequenceRequest request) override;
  void cancel(batching::SequenceId id) override;
  uint64_t steps() const override { return steps_.load(); }

  int event_fd() const { return event_fd_; }
  // All events since the last call. If an exception has ended the engine thread, throws it again.
  std::vector<batching::SequenceEvent> take_events();
  batching::PlannerStats stats() const;
  void stop();

 private:
  void run();
  void finish_step(std::vector<batching::SequenceEvent>& events);
  void take_commands(std::vector<batching::SequenceEvent>& events);
  void publish(std::vector<batching::SequenceEvent> events);
  bool wait_for_commands();

  batching::Planner planner_;  // engine thread only
  GroupSteps group_;
  batching::DraftSource* drafts_;
  int event_fd_ = -1;
  std::atomic<uint64_t> steps_{0};

  mutable std::mutex mutex_;  // guards everything below
  std::condition_variable commands_changed_;
  std::vector<batching::SequenceRequest> added_;
  std::vector<batching::SequenceId> cancelled_;
  std::vector<batching::SequenceEvent> events_;
  batching::PlannerStats stats_;
  std::exception_ptr failure_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace optserve::worker
