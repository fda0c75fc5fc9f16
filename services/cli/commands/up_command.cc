#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <string_view>

#include "base/log.h"
#include "cli/commands/command.h"
#include "cli/stack/free_ports.h"
#include "cli/stack/stack_folder.h"
#include "cli/stack/stack_keys.h"
#include "cli/stack/stack_plan.h"
#include "cli/stack/stack_runner.h"

namespace optserve::cli {
namespace {

constexpr std::string_view kReadyLine = "ready\n";
constexpr std::string_view kProgress = "progress: ";  // begins a line that is not the last

std::string ready_text(const StackPlan& plan, const StackOptions& options) {
  std::string text = "ready: " + options.name + " at " + plan.client_endpoint + "\n";
  for (const PlannedProcess& process : plan.processes) {
    // The supervisor of a worker has few metrics; those of rank 0, on the next port, describe the work.
    const bool is_worker = process.program == "optserve-worker";
    text += "  " + process.name + ": http://127.0.0.1:" + std::to_string(process.http_port + (is_worker ? 1 : 0)) +
            "/metrics, " + options.folder + "/" + process.name + ".log\n";
  }
  if (!plan.api_url.empty()) text += "  HTTP API: " + plan.api_url + "/v1\n  page: " + plan.api_url + "/ui\n";
  if (!plan.client_secret_key.empty()) {
    text += "  keys for other programs: OPTSERVE_SECRET_KEY=" + plan.client_secret_key +
            " OPTSERVE_SERVER_KEY=" + plan.server_key + "\n";
  }
  return text + "stop it with: optserve down --dir " + options.folder + "\n";
}

// Reports to the terminal that the supervisor runs in.
class TerminalReport final : public StartReport {
 public:
  explicit TerminalReport(const StackOptions& options) : options_(options) {}
  void progress(const std::string& line) override { std::fprintf(stderr, "%s\n", line.c_str()); }
  void ready(const StackPlan& plan) override { std::fputs(ready_text(plan, options_).c_str(), stderr); }
  void failed(const std::string& message) override { std::fprintf(stderr, "optserve: %s\n", message.c_str()); }
  bool is_abandoned() const override { return false; }

 private:
  const StackOptions& options_;
};

// Reports through a pipe to the command that started the supervisor.
class PipeReport final : public StartReport {
 public:
  explicit PipeReport(int fd) : fd_(fd) {}
  ~PipeReport() override { close(fd_); }
  PipeReport(const PipeReport&) = delete;
  PipeReport& operator=(const PipeReport&) = delete;

  void progress(const std::string& line) override { send(std::string(kProgress) + line + "\n"); }
  void ready(const StackPlan&) override { send(kReadyLine); }
  void failed(const std::string& message) override { send(message); }
  bool is_abandoned() const override {
    pollfd entry{fd_, 0, 0};
    return poll(&entry, 1, 0) > 0 && (entry.revents & POLLERR) != 0;
  }

 private:
  void send(std::string_view text) const {
    [[maybe_unused]] const ssize_t ignored = write(fd_, text.data(), text.size());  // fits the pipe
  }
  int fd_;
};

// Shows the lines of progress as they arrive. Returns the last line: kReadyLine or a message.
std::string read_report(int fd) {
  std::string text;
  std::array<char, 4096> buffer{};
  while (true) {
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(buffer.data(), static_cast<size_t>(got));
    while (text.starts_with(kProgress)) {
      const size_t end = text.find('\n');
      if (end == std::string::npos) break;
      std::fprintf(stderr, "%s\n", text.substr(kProgress.size(), end - kProgress.size()).c_str());
      text.erase(0, end + 1);
    }
    if (text == kReadyLine) return text;
  }
}

class UpCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command(
        "up", "Start a local stack (scheduler, tokenizers, workers, gateway) and keep its processes alive", selected);
    add_options(command, options_);
    command.add_example("optserve up --model models/opt-125m", "one worker on the CPU, on ports 5555 and 5556");
    command.add_example("optserve up --model models/opt-30b --world 2", "one worker of two processes");
    command.add_example("optserve up --model models/opt-125m --ports auto --dir run2", "a second stack beside it");
  }

  int run(const Clock& clock) override {
    if (const Status status = check_options(options_); !status.ok()) return refused(status.refusal().message);
    const StackFolder folder(options_.folder);
    folder.create();
    std::optional<StackLock> lock = StackLock::try_take(folder);
    if (!lock) return refused(running_text(folder));
    if (folder.read_pid()) {
      std::fprintf(stderr, "optserve: the stack that was started in %s has died; starting a new one\n",
                   folder.path().c_str());
      folder.remove_pid();
    }
    const StackPlan plan = plan_stack(options_, options_.ports == "auto" ? free_ports() : fixed_ports());
    for (const int port : plan.ports) {
      if (!is_port_free(port)) {
        return refused("port " + std::to_string(port) + " is in use; stop what uses it, or give --ports auto" +
                       (port == options_.api_port ? " or --http PORT" : ""));
      }
    }
    if (!options_.no_keys) {
      if (const Status status = StackKeys(options_.folder).prepare(options_); !status.ok()) {
        return refused("keys: " + status.refusal().message);
      }
    }
    folder.rotate_logs();
    return options_.foreground ? run_here(plan, folder, clock) : run_detached(plan, folder, clock);
  }

 private:
  static int refused(const std::string& message) {
    std::fprintf(stderr, "optserve: %s\n", message.c_str());
    return kExitFailed;
  }

  StackPorts free_ports() const {
    const int first = find_free_port_block(3 + http_ports_needed(options_));
    return {.clients = first, .services = first + 1, .first_http = first + 3, .api = first + 2};
  }
  StackPorts fixed_ports() const { return {.api = options_.api_port}; }

  static std::string running_text(const StackFolder& folder) {
    const std::optional<ProcessIdentity> owner = folder.read_pid();
    return "a stack is running in " + folder.path() + (owner ? " (pid " + std::to_string(owner->pid) + ")" : "") +
           "; stop it with: optserve down --dir " + folder.path();
  }

  int run_here(const StackPlan& plan, const StackFolder& folder, const Clock& clock) {
    init_logging("supervisor", options_.log_level, options_.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
    TerminalReport report(options_);
    return run_stack(options_, plan, folder, report, clock) ? kExitOk : kExitFailed;
  }

  int run_detached(const StackPlan& plan, const StackFolder& folder, const Clock& clock) {
    std::array<int, 2> report{-1, -1};
    if (pipe2(report.data(), O_CLOEXEC) != 0) throw errno_error("pipe2");
    std::fflush(nullptr);
    const pid_t pid = fork();
    if (pid < 0) throw errno_error("fork");
    if (pid == 0) {
      close(report[0]);
      _exit(supervise(plan, folder, report[1], clock));
    }
    close(report[1]);
    const std::string heard = read_report(report[0]);
    close(report[0]);
    if (heard == kReadyLine) {
      std::fputs(ready_text(plan, options_).c_str(), stderr);
      return kExitOk;
    }
    waitpid(pid, nullptr, 0);
    return refused(heard.empty() ? "the supervisor died; see " + folder.log_path("supervisor") : heard);
  }

  // Runs in the background process until the stack stops.
  int supervise(const StackPlan& plan, const StackFolder& folder, int report_fd, const Clock& clock) {
    PipeReport report(report_fd);
    try {
      setsid();
      const int log = open(folder.log_path("supervisor").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
      const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
      if (log < 0 || null < 0) throw errno_error("open " + folder.log_path("supervisor"));
      if (dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0) {
        throw errno_error("dup2");
      }
      init_logging("supervisor", options_.log_level,
                   options_.log_format == "json" ? LogFormat::kJson : LogFormat::kText);
      return run_stack(options_, plan, folder, report, clock) ? kExitOk : kExitFailed;
    } catch (const std::exception& error) {
      report.failed(error.what());
      std::fprintf(stderr, "%s\n", error.what());
      return kExitFailed;
    }
  }

  StackOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_up_command() { return std::make_unique<UpCommand>(); }

}  // namespace optserve::cli
