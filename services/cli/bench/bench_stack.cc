#include "cli/bench/bench_stack.h"

#include <csignal>
#include <thread>

#include "base/shutdown.h"
#include "cli/stack/child_process.h"
#include "cli/stack/http_probe.h"
#include "cli/stack/stack_folder.h"

namespace optserve::cli {
namespace {

constexpr milliseconds kStateInterval{50};
constexpr int kUpTailLines = 30;
constexpr milliseconds kMetricsTimeout{2000};

}  // namespace

class BenchStack::Process {
 public:
  explicit Process(const LaunchSpec& launch) : child(ChildProcess::start(launch)) {}
  ~Process() {
    child.signal(SIGTERM);  // it stops the others in order
    while (!child.poll_exit()) {
      if (shutdown_forced()) child.signal(SIGKILL);  // the others die with it
      std::this_thread::sleep_for(kStateInterval);
    }
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  ChildProcess child;
};

BenchStack::BenchStack(const std::vector<std::string>& arguments, const std::string& folder, const Clock& clock)
    : clock_(clock) {
  install_shutdown_signals();
  const StackFolder logs(folder);  // not the stack's own folder, whose logs `up` renames when it starts
  const StackFolder stack(stack_folder(folder));
  process_ = std::make_unique<Process>(LaunchSpec{sibling_program("optserve"), arguments, logs.log_path("up")});
  while (true) {
    if (const auto status = process_->child.poll_exit()) {
      throw Error("the pipeline did not start: optserve up " + describe_exit(*status) + "\n" +
                  logs.log_tail("up", kUpTailLines));
    }
    if (shutdown_requested()) throw Error("interrupted while the pipeline started");
    const auto state = stack.read_state();
    if (state.ok() && state.value().state == "ready") {
      endpoint_ = state.value().client_endpoint;
      for (const StackProcess& process : state.value().processes) {
        if (process.name == "worker-0") rank_0_port_ = process.http_port + 1;  // ranks listen behind their supervisor
      }
      return;
    }
    std::this_thread::sleep_for(kStateInterval);
  }
}

BenchStack::~BenchStack() = default;

std::optional<DeviceUsage> BenchStack::device_usage() const {
  const auto answer = http_get(rank_0_port_, "/metrics", kMetricsTimeout, clock_);
  return answer && answer->status == 200 ? parse_device_usage(answer->body) : std::nullopt;
}

std::string BenchStack::stack_folder(const std::string& folder) { return folder + "/stack"; }

}  // namespace optserve::cli
