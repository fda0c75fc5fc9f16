// The system under test: a scheduler, tokenizers, worker groups and client processes, each restarted whenever it ends.
// Used from the main thread alone, since a child process ends with the thread that started it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/stack/child_process.h"
#include "network.h"
#include "preload.h"
#include "tcp_proxy.h"

namespace optserve::chaos {

struct TopologyOptions {
  std::string folder;  // of logs, ledgers, the model and, in its own folder, the journal
  uint64_t seed = 1;
  int tokenizers = 2, groups = 3, world = 2, clients = 3;
  double load = 15;  // jobs a second of all clients together
  bool preload = true;
  int64_t began_ms = 0;  // of the run, on the clock of now_ms()
};

enum class Role { kScheduler, kTokenizer, kWorker, kClient };

struct Member {
  std::string name;
  Role role = Role::kScheduler;
  cli::LaunchSpec spec;
  int node = -1;  // of the network; -1: there is none
  int link = -1;  // of the proxy through which it reaches the scheduler; -1: directly
  ShimControl* shim = nullptr;
  std::unique_ptr<cli::ChildProcess> process;
  int64_t started_ms = 0;
  int64_t told_to_end_ms = 0;
  int64_t start_at_ms = -1;        // when it is started next; -1: it is not to be
  bool exit_expected = false;      // somebody ended it, or told it to end
  bool must_exit_clean = false;    // told to end by SIGTERM
  int64_t left_alone_from_ms = 0;  // no other fault before

  bool is_up() const { return process && process->is_running() && !exit_expected; }
};

class Topology {
 public:
  // Throws Error. Starts nothing.
  Topology(const TopologyOptions& options, Network* network, TcpProxy& proxy);
  ~Topology();
  Topology(const Topology&) = delete;
  Topology& operator=(const Topology&) = delete;

  void start(Role role);  // all of that role
  // Starts what is due and notices what has ended. To be called often.
  void poll();
  // Ends it, and starts it again after a while.
  void kill(Member& member, int64_t restart_after_ms);
  void terminate(Member& member, int64_t restart_after_ms);
  // SIGTERM to clients for their last jobs; true: each has ended by itself, all its jobs with it.
  bool finish_clients();
  // SIGTERM to all others, workers first; true: each exited with status 0.
  bool shut_down();

  std::vector<Member*> members(Role role);
  Member& scheduler() { return *members_.front(); }
  TcpAddress client_address() const { return client_address_; }
  TcpAddress service_address() const { return service_address_; }
  std::string ledger(int client) const { return options_.folder + "/client-" + std::to_string(client) + ".ledger"; }
  std::string journal_folder() const { return options_.folder + "/journal"; }
  const TopologyOptions& options() const { return options_; }
  // Ends that nobody asked for, and ends after SIGTERM with another status than 0.
  const std::vector<std::string>& surprises() const { return surprises_; }

 private:
  Member& add(const std::string& name, Role role, const std::string& program);
  std::string route(Member& member, const TcpAddress& target);
  void add_scheduler();
  void add_services();
  void add_clients();
  void launch(Member& member);
  void note_exit(Member& member, int status);
  void wait_until(const std::function<bool()>& condition, int64_t limit_ms);

  TopologyOptions options_;
  Network* network_;
  TcpProxy& proxy_;
  TcpAddress client_address_, service_address_;
  std::vector<std::unique_ptr<Member>> members_;
  std::vector<std::string> surprises_;
};

// What a process uses now, of /proc.
struct Usage {
  int64_t rss_kb = 0;
  int threads = 0;
  int descriptors = 0;
};
Usage usage_of(pid_t pid);
// Processes other than this one whose command line names the folder.
std::vector<std::string> processes_naming(const std::string& folder);

}  // namespace optserve::chaos
