// A local stack that runs only while a benchmark does: `optserve up` in a folder of its own.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cli/bench/device_usage.h"

namespace optserve::cli {

class BenchStack {
 public:
  // Runs `optserve up` with these arguments, which name stack_folder(folder), and returns when every process is ready.
  // Throws Error with the end of its output if it ends before that.
  BenchStack(const std::vector<std::string>& arguments, const std::string& folder, const Clock& clock);
  ~BenchStack();  // stops the stack and waits for its end
  BenchStack(const BenchStack&) = delete;
  BenchStack& operator=(const BenchStack&) = delete;

  static std::string stack_folder(const std::string& folder);
  const std::string& endpoint() const { return endpoint_; }
  // What rank 0 of its worker reports about its device; nothing if it does not answer.
  std::optional<DeviceUsage> device_usage() const;

 private:
  class Process;
  std::unique_ptr<Process> process_;
  const Clock& clock_;
  std::string endpoint_;
  int rank_0_port_ = 0;
};

}  // namespace optserve::cli
