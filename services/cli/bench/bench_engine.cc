#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <optional>

#include "base/shutdown.h"
#include "cli/bench/bench_runs.h"
#include "cli/bench/scratch_folder.h"
#include "cli/stack/child_process.h"
#include "cli/stack/stack_folder.h"

namespace optserve::cli {
namespace {

using nlohmann::json;

constexpr int kPollMs = 100;
constexpr int kWorkerTailLines = 20;
constexpr size_t kLineBytesMax = 1 << 20;

// The read end of a pipe whose lines are events.
class EventPipe {
 public:
  EventPipe() {
    if (pipe2(ends_.data(), O_CLOEXEC) != 0) throw errno_error("pipe2");
  }
  ~EventPipe() {
    close_write_end();
    close(ends_[0]);
  }
  EventPipe(const EventPipe&) = delete;
  EventPipe& operator=(const EventPipe&) = delete;

  int write_end() const { return ends_[1]; }
  void close_write_end() {
    if (ends_[1] >= 0) close(ends_[1]);
    ends_[1] = -1;
  }
  // Waits a moment for events and hands them on; false once nobody can write any more.
  bool pump(const OnBenchEvent& on_event) {
    pollfd entry{ends_[0], POLLIN, 0};
    if (poll(&entry, 1, kPollMs) <= 0) return true;
    std::array<char, 1 << 14> buffer{};
    const ssize_t got = read(ends_[0], buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) return true;
    if (got < 0) throw errno_error("read the events of optserve-worker");
    if (got == 0) return false;
    text_.append(buffer.data(), static_cast<size_t>(got));
    size_t begin = 0;
    for (size_t end = text_.find('\n'); end != std::string::npos; end = text_.find('\n', begin)) {
      // Other lines may come from libraries, or from a worker that fails before its log is set up.
      const json event = json::parse(text_.substr(begin, end - begin), nullptr, false);
      if (event.is_object()) on_event(event);
      begin = end + 1;
    }
    text_.erase(0, begin);
    if (text_.size() > kLineBytesMax) throw Error("optserve-worker printed a line without end");
    return true;
  }

 private:
  std::array<int, 2> ends_{-1, -1};
  std::string text_;
};

}  // namespace

void run_on_engine(const std::vector<std::string>& worker_arguments, const OnBenchEvent& on_event) {
  install_shutdown_signals();
  const ScratchFolder scratch;
  const StackFolder logs(scratch.path());
  EventPipe events;
  LaunchSpec launch{sibling_program("optserve-worker"), worker_arguments, logs.log_path("worker")};
  launch.stdout_fd = events.write_end();
  ChildProcess worker = ChildProcess::start(launch);
  events.close_write_end();
  bool told = false, finished = false;
  const auto hand_on = [&](const json& event) {
    finished = finished || event.value("event", "") == "finished";
    on_event(event);
  };
  while (events.pump(hand_on)) {
    if (shutdown_requested() && !told) {
      told = true;
      worker.signal(SIGTERM);
    }
    if (shutdown_forced()) throw Error("interrupted twice");
  }
  const int status = worker.wait();
  if (status == 0 && (finished || told)) return;
  const std::string tail = logs.log_tail("worker", kWorkerTailLines);
  throw Error("optserve-worker " + describe_exit(status) +
              (tail.empty() ? "" : "\n--- the end of its log ---\n" + tail));
}

}  // namespace optserve::cli
