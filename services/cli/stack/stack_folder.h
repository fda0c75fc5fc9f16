// The folder of a local stack: the files that `optserve up` writes for `down` and for commands with --dir.
//   stack.json       endpoints, and each process with its pid, port and log
//   supervisor.pid   identity of the process that keeps the stack alive
//   lock             locked by that process as long as it lives
//   NAME.log         output of each process; supervisor.log of the supervisor
//   journal.db       the scheduler's journal; kept over restarts
//   keys/            the keys of its processes and of the commands that use it (stack_keys.h)
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/stack/process_identity.h"

namespace optserve::cli {

struct StackProcess {
  std::string name;
  pid_t pid = -1;  // -1 while it waits to be started again
  int http_port = 0;
  int restarts = 0;
};

struct StackState {
  std::string state;  // starting, ready, stopping or failed
  std::string model;
  std::string client_endpoint;
  std::string service_endpoint;
  std::string api_url;  // of the gateway; empty: there is none
  int drain_seconds = 0;
  std::vector<StackProcess> processes;
  std::string client_secret_key{}, server_key{};  // files of the keys for commands; empty: there are no keys
};

inline constexpr const char* kDefaultStackFolder = "optserve-run";

class StackFolder {
 public:
  explicit StackFolder(std::string path) : path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  std::string log_path(const std::string& process) const { return path_ + "/" + process + ".log"; }

  void create() const;  // with its parents; throws Error
  // The last `lines` lines of a process's log, for error messages; empty without a log.
  std::string log_tail(const std::string& process, int lines) const;
  // The cause that the first error in a process's log names; empty if there is none.
  std::string first_cause(const std::string& process) const;
  // Renames the logs of an earlier start to NAME.log.1.
  void rotate_logs() const;

  void write_state(const StackState& state) const;  // replaces the file as a whole; throws Error
  Result<StackState> read_state() const;
  void write_pid(const ProcessIdentity& identity) const;
  std::optional<ProcessIdentity> read_pid() const;
  void remove_pid() const;

 private:
  void replace_file(const std::string& name, const std::string& text) const;

  std::string path_;
};

// The lock of a folder. A forked child shares it; it is released when no process has it open.
class StackLock {
 public:
  // Nothing if another stack holds the lock. Throws Error if the file cannot be opened.
  static std::optional<StackLock> try_take(const StackFolder& folder);
  ~StackLock();
  StackLock(StackLock&& other) noexcept;
  StackLock& operator=(StackLock&&) = delete;

 private:
  explicit StackLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

}  // namespace optserve::cli
