// Breaks the system at random. The seed decides which faults come, when, where and for how long; what a process is
// doing when it is hit depends on the machine as well. Used on the main thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "rogue_peers.h"
#include "topology.h"

namespace optserve::chaos {

struct NemesisOptions {
  uint64_t seed = 1;
  std::vector<std::string> faults;  // names from fault_names()
  int64_t every_ms = 1'500;         // mean time between two faults
  int64_t pause_max_ms = 30'000;    // how long a fault lasts at most
  bool small_disk = false;          // the journal has a file system of its own
  bool lose_journal = false;        // sabotage: the first kill of the scheduler deletes its journal
};

// One fault that was injected.
struct FaultRecord {
  std::string fault, target;
  int64_t at_ms = 0;
  int64_t lasts_ms = 0;  // 0: it is over at once
};

class Nemesis {
 public:
  Nemesis(const NemesisOptions& options, Topology& topology, Network* network, TcpProxy& proxy);

  // Injects faults that are due, and ends those that have lasted long enough.
  void turn();
  // Ends every fault.
  void heal();
  const std::vector<FaultRecord>& records() const { return records_; }
  // The faults that were asked for but that this machine does not allow, with the reasons.
  const std::vector<std::string>& skipped() const { return skipped_; }

 private:
  struct Fault {
    std::string name;
    std::function<bool()> inject;  // false: not possible at this moment
  };
  struct Undo {
    int64_t at_ms;
    std::function<void()> action;
  };

  void add(const std::string& name, std::function<bool()> inject, const std::string& why_not = "");
  void add_process_faults();
  void add_network_faults();
  void add_disk_and_clock_faults();
  void add_peer_faults();

  Member* pick(Role role);
  Member* pick_any(const std::function<bool(const Member&)>& fits);
  bool record(const std::string& target, int64_t lasts_ms, std::function<void()> undo = {});
  bool kill(Role role);
  bool kill_rank();
  bool terminate(Role role);
  bool restore();
  bool freeze(Role role);
  bool freeze_rank();
  bool freeze_process(pid_t pid, const std::string& target);
  bool break_link(Member* member, const std::function<void(int node, bool broken)>& set);
  bool bend_proxy(const LinkRule& rule);
  bool fill_disk();
  int64_t between(int64_t low, int64_t high);
  int64_t pause();

  NemesisOptions options_;
  Topology& topology_;
  Network* network_;
  TcpProxy& proxy_;
  RoguePeers rogues_;
  std::mt19937_64 random_;
  std::vector<Fault> faults_;
  std::vector<std::string> skipped_;
  std::vector<Undo> undos_;
  std::vector<FaultRecord> records_;
  std::string injecting_;  // the fault that is being injected
  int64_t next_ms_ = 0;
};

// All faults.
const std::vector<std::string>& fault_names();

}  // namespace optserve::chaos
