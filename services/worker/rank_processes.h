// The processes of one start of a group, which are started and killed together.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace optserve::worker {

struct RankExit {
  int rank = 0;
  int status = 0;                // as waitpid() reports it
  std::string describe() const;  // "rank 1 was killed by signal 9", "rank 0 exited with status 1"
};

class RankProcesses {
 public:
  RankProcesses() = default;
  ~RankProcesses();  // kills and reaps what is left
  RankProcesses(const RankProcesses&) = delete;
  RankProcesses& operator=(const RankProcesses&) = delete;

  // Starts this program again, with `arguments`, as a process that inherits `inherited_fds` and dies when this one
  // does. Throws Error.
  void start(int rank, const std::vector<std::string>& arguments, const std::vector<int>& inherited_fds);
  // A rank that has ended and has not been returned before.
  std::optional<RankExit> poll_exit();
  void signal_rank(int rank, int signal) const;
  // Kills all ranks with SIGKILL and reaps them.
  void kill_all();
  bool all_gone() const;
  std::vector<int> exit_fds() const;  // each is readable once its rank has ended

 private:
  struct Process {
    int rank = 0;
    pid_t pid = -1;
    int pid_fd = -1;
  };
  static void forget(Process& process);
  std::vector<Process> processes_;
};

}  // namespace optserve::worker
