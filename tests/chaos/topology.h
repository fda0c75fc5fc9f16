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
  std::string folder;  // for logs, ledgers, the model and, in a folder of its own, the journal
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
  int node = -1;  // its node of the network; -1: there is no network
  int link = -1;  // the link of the proxy through which it reaches the scheduler; -1: it connects directly
  ShimControl* shim = nullptr;
  std::unique_ptr<cli::ChildProcess> process;
  int64_t started_ms = 0;
  int64_t told_to_end_ms = 0;
  int64_t start_at_ms = -1;              // when it is started next; -1: never
  bool exit_expected = false;            // it was killed or told to end
  bool must_exit_clean = false;          // it got SIGTERM
  std::function<void()> before_start{};  // runs once, before it is started next
  int64_t left_alone_from_ms = 0;        // until then no other fault may hit it

  bool is_up() const { return process && process->is_running() && !exit_expected; }
};

class Topology {
 public:
  // Throws Error. Starts nothing.
  Topology(const TopologyOptions& options, Network* network, TcpProxy& proxy);
  ~Topology();
  Topology(const Topology&) = delete;
  Topology& operator=(const Topology&) = delete;

  void start(Role role);  // starts all members of that role
  // Starts members that are due, and notices those that have ended. To be called often.
  void poll();
  // Kills a member, which is started again after a while.
  void kill(Member& member, int64_t restart_after_ms);
  void terminate(Member& member, int64_t restart_after_ms);
  // Sends SIGTERM to the clients and waits for their last jobs. True if each client ended by itself, with all its jobs.
  bool finish_clients();
  // Sends SIGTERM to all others, workers first. True if each exited with status 0.
  bool shut_down();

  std::vector<Member*> members(Role role);
  Member& scheduler() { return *members_.front(); }
  TcpAddress client_address() const { return client_address_; }
  TcpAddress service_address() const { return service_address_; }
  std::string ledger(int client) const { return options_.folder + "/client-" + std::to_string(client) + ".ledger"; }
  std::string journal_folder() const { return options_.folder + "/journal"; }
  const TopologyOptions& options() const { return options_; }
  // The ends that nobody asked for, and the ends after SIGTERM with a status other than 0.
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

// What a process uses at present, from /proc.
struct Usage {
  int64_t rss_kb = 0;
  int threads = 0;
  int descriptors = 0;
};
Usage usage_of(pid_t pid);
// Processes other than this one whose command line names the folder.
std::vector<std::string> processes_naming(const std::string& folder);

}  // namespace optserve::chaos
