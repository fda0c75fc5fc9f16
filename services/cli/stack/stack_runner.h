// Runs a planned stack in this process until it is told to stop: the loop around StackSupervisor.
#pragma once

#include "base/clock.h"
#include "cli/stack/stack_folder.h"
#include "cli/stack/stack_plan.h"

namespace optserve::cli {

// Is informed about the start: by any number of calls of progress(), then by exactly one of ready() and failed().
class StartReport {
 public:
  virtual ~StartReport() = default;
  virtual void progress(const std::string& line) = 0;
  virtual void ready(const StackPlan& plan) = 0;
  // `message` begins with the cause, as the log of the process that failed tells it.
  virtual void failed(const std::string& message) = 0;
  // True when nobody waits for the report: the start is then given up.
  virtual bool is_abandoned() const = 0;
};

// Starts the processes, writes stack.json and supervisor.pid, keeps the processes alive until SIGTERM or SIGINT, and
// stops them. False if the start failed. Call it from a thread that lives as long as the processes: children die with
// the thread that started them.
bool run_stack(const StackOptions& options, const StackPlan& plan, const StackFolder& folder, StartReport& report,
               const Clock& clock);

}  // namespace optserve::cli
