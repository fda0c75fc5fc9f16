// A network of our own, where the rights allow: each node is a network namespace behind a router, which is the
// harness's own namespace, so that its link can be taken down or lose packets one way.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tcp_proxy.h"

namespace optserve::chaos {

class Network {
 public:
  // Enters namespaces of its own (user, if need be, network and mounts): before any thread starts. Null if the machine
  // does not allow it; `why_not` says what failed.
  static std::unique_ptr<Network> create(const std::string& log_path, std::string& why_not);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  int add_node();  // throws Error
  std::string address(int node) const { return subnet(node) + ".2"; }
  std::string router_address(int node) const { return subnet(node) + ".1"; }
  // What setns() opens to enter the node; valid while this object lives.
  std::string namespace_path(int node) const;

  void set_link(int node, bool up) const;
  // Drops the packets from the node (kUp) or to it (kDown).
  void set_blocked(int node, Direction direction, bool blocked) const;

 private:
  explicit Network(const std::string& log_path) : log_path_(log_path) {}
  static std::string subnet(int node) { return "10.77." + std::to_string(node); }
  bool run_ip(const std::vector<std::string>& arguments, int node = -1) const;
  void must(const std::vector<std::string>& arguments, int node = -1) const;

  std::string log_path_;
  std::vector<int> namespaces_;  // descriptors
};

// A file system of `bytes` in memory at this folder, in our own mount namespace; false if it cannot be.
bool mount_small_disk(const std::string& folder, size_t bytes);
void unmount(const std::string& folder);

}  // namespace optserve::chaos
