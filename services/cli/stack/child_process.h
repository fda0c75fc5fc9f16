// Programs started by this one, which die with it.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace optserve::cli {

struct LaunchSpec {
  std::string program;                 // path
  std::vector<std::string> arguments;  // without the program's name
  std::string log_path;                // file that standard output and error are appended to; empty: the parent's
  int stdout_fd = -1;                  // descriptor that standard output goes to instead; -1: none
};

// The path of a program of optserve: they lie in one folder, beside the running program. Throws Error naming the path
// if it is not there.
std::string sibling_program(const std::string& name);

// "exited with status 1", "was killed by signal 9 (Killed)": a status of waitpid() in words.
std::string describe_exit(int wait_status);

class ChildProcess {
 public:
  // The child has a process group of its own, so that a Ctrl-C in the terminal reaches the parent alone. Its standard
  // input is /dev/null. It gets SIGKILL when the thread that started it ends. Throws Error if the program cannot be
  // executed.
  static ChildProcess start(const LaunchSpec& spec);
  ~ChildProcess();  // kills and reaps it if it still runs
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) noexcept;

  pid_t pid() const { return pid_; }
  bool is_running() const { return pid_ > 0 && !status_; }
  // The wait status once it has ended; does not wait.
  std::optional<int> poll_exit();
  void signal(int number) const;  // nothing happens once the child has been reaped
  int wait();                     // waits until it ends; the wait status

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  void end();

  pid_t pid_ = -1;
  std::optional<int> status_;
};

}  // namespace optserve::cli
