#include "network.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "cli/stack/child_process.h"
#include "launch.h"

namespace optserve::chaos {
namespace {

std::string find_ip_program() {
  for (const char* path : {"/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip"}) {
    if (access(path, X_OK) == 0) return path;
  }
  return {};
}

bool write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path);
  file << text;
  return static_cast<bool>(file.flush());
}

bool enter_namespaces() {
  if (unshare(CLONE_NEWNET | CLONE_NEWNS) == 0) return true;
  const auto user = std::to_string(geteuid()), group = std::to_string(getegid());
  return unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS) == 0 && write_file("/proc/self/setgroups", "deny") &&
         write_file("/proc/self/uid_map", "0 " + user + " 1") && write_file("/proc/self/gid_map", "0 " + group + " 1");
}

}  // namespace

std::unique_ptr<Network> Network::create(const std::string& log_path, std::string& why_not) {
  std::unique_ptr<Network> network(new Network(log_path));
  if (find_ip_program().empty()) {
    why_not = "the program ip (iproute2) is missing";
  } else if (!enter_namespaces()) {
    why_not = std::string("namespaces: ") + std::strerror(errno);
  } else if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    why_not = std::string("mount namespace: ") + std::strerror(errno);
  } else if (!write_file("/proc/sys/net/ipv4/ip_forward", "1")) {
    why_not = "packets cannot be forwarded (/proc/sys is read-only)";
  } else if (!network->run_ip({"link", "set", "lo", "up"})) {
    why_not = "ip link failed";
  } else {
    try {
      network->add_node();  // number 0 only shows whether nodes can be made; no process runs there
      return network;
    } catch (const Error& error) {
      why_not = error.what();
    }
  }
  return nullptr;
}

Network::~Network() {
  for (const int fd : namespaces_) close(fd);
}

bool Network::run_ip(const std::vector<std::string>& arguments, int node) const {
  cli::LaunchSpec spec{find_ip_program(), arguments, log_path_};
  if (node >= 0) spec = launched(spec, {namespace_path(node), {}});
  return cli::ChildProcess::start(spec).wait() == 0;
}

void Network::must(const std::vector<std::string>& arguments, int node) const {
  if (run_ip(arguments, node)) return;
  std::string text = "ip";
  for (const std::string& argument : arguments) text += " " + argument;
  throw Error(text + " failed");
}

std::string Network::namespace_path(int node) const {
  return "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(namespaces_.at(static_cast<size_t>(node)));
}

int Network::add_node() {
  const int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  if (home < 0 || unshare(CLONE_NEWNET) != 0) throw errno_error("a network namespace");
  namespaces_.push_back(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  if (setns(home, CLONE_NEWNET) != 0) throw errno_error("setns");
  close(home);
  const int node = static_cast<int>(namespaces_.size()) - 1;
  const std::string outer = "port" + std::to_string(node);
  must({"link", "add", outer, "type", "veth", "peer", "name", "uplink", "netns", namespace_path(node)});
  must({"addr", "add", router_address(node) + "/24", "dev", outer});
  must({"link", "set", outer, "up"});
  must({"link", "set", "lo", "up"}, node);
  must({"addr", "add", address(node) + "/24", "dev", "uplink"}, node);
  must({"link", "set", "uplink", "up"}, node);
  must({"route", "add", "default", "via", router_address(node)}, node);
  return node;
}

void Network::set_link(int node, bool up) const {
  // The router's end: the node's own routes stay.
  run_ip({"link", "set", "port" + std::to_string(node), up ? "up" : "down"});
}

void Network::set_blocked(int node, Direction direction, bool blocked) const {
  const std::string action = blocked ? "add" : "del";
  if (direction == Direction::kDown) {
    run_ip({"route", action, "blackhole", address(node) + "/32"});
  } else {
    run_ip({"rule", action, "from", address(node), "blackhole"});
  }
}

bool mount_small_disk(const std::string& folder, size_t bytes) {
  std::filesystem::create_directories(folder);
  return mount("none", folder.c_str(), "tmpfs", 0, ("size=" + std::to_string(bytes)).c_str()) == 0;
}

void unmount(const std::string& folder) { umount2(folder.c_str(), MNT_DETACH); }

}  // namespace optserve::chaos
