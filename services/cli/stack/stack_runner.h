// Runs a planned stack in this process until it is told to stop: the loop around StackSupervisor.
#pragma once

#include "cli/stack/stack_folder.h"
#include "cli/stack/stack_plan.h"

namespace optserve::cli {

// Hears how the start went.
class StartReport {
 public:
  virtual ~StartReport() = default;
  virtual void ready(const StackPlan& plan) = 0;
  // `message` ends with the last lines of the log of the process to blame.
  virtual void failed(const std::string& message) = 0;
  // True when nobody waits for the report any more: a start that nobody waits for is given up.
  virtual bool is_abandoned() const = 0;
};

// Starts the processes, writes stack.json and supervisor.pid, keeps the processes alive until SIGTERM or SIGINT, stops
// them. Returns the exit status. Needs a process with one thread: children die with the thread that started them.
int run_stack(const StackOptions& options, const StackPlan& plan, const StackFolder& folder, StartReport& report);

}  // namespace optserve::cli
