// A program started by this one, which dies with it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace optserve::cli {

struct LaunchSpec {
  std::string program;                 // path
  std::vector<std::string> arguments;  // without the program's name
  std::string log_path;                // standard output and error are appended here; empty: inherited
  int stdout_fd = -1;                  // what standard output goes to instead; -1: as log_path says
};

// "exited with status 1", "was killed by signal 9 (Killed)": of a status that waitpid() gave.
std::string describe_exit(int wait_status);

class ChildProcess {
 public:
  // In a process group of its own, so that a Ctrl-C in the terminal reaches the parent alone; standard input is
  // /dev/null; SIGKILL when the thread that started it ends. Throws Error, also when the program cannot be executed.
  static ChildProcess start(const LaunchSpec& spec);
  ~ChildProcess();  // kills and reaps it if it still runs
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;

  pid_t pid() const { return pid_; }
  bool is_running() const { return pid_ > 0 && !status_; }
  // The wait status once it has ended; does not wait.
  std::optional<int> poll_exit();
  void signal(int number) const;  // does nothing once it was reaped
  int wait();                     // until it ends

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  void end();

  pid_t pid_ = -1;
  std::optional<int> status_;
};

}  // namespace optserve::cli
