#include "transport/curve/connections.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

namespace optserve::transport {
namespace {

constexpr size_t kSweepFirst = 1'024;

// nullopt if there is no such socket.
std::optional<ino_t> socket_inode(int fd) {
  struct stat about {};
  if (fd < 0 || fstat(fd, &about) != 0 || !S_ISSOCK(about.st_mode)) return std::nullopt;
  return about.st_ino;
}

// Whether `fd` is a connection that was accepted at this endpoint.
bool is_accepted_at(int fd, const std::string& endpoint) {
  sockaddr_storage peer{}, own{};
  socklen_t peer_size = sizeof peer, own_size = sizeof own;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &peer_size) != 0) return false;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&own), &own_size) != 0) return false;
  if (own.ss_family == AF_UNIX) {
    constexpr std::string_view kIpc = "ipc://";
    sockaddr_un path{};
    std::memcpy(&path, &own, sizeof path);
    return endpoint.starts_with(kIpc) && endpoint.substr(kIpc.size()) == path.sun_path;
  }
  in_port_t port = 0;
  if (own.ss_family == AF_INET) {
    sockaddr_in four{};
    std::memcpy(&four, &own, sizeof four);
    port = four.sin_port;
  } else if (own.ss_family == AF_INET6) {
    sockaddr_in6 six{};
    std::memcpy(&six, &own, sizeof six);
    port = six.sin6_port;
  }
  return endpoint.starts_with("tcp://") && endpoint.substr(endpoint.rfind(':') + 1) == std::to_string(ntohs(port));
}

std::vector<int> open_descriptors() {
  std::vector<int> found;
  std::error_code code;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", code)) {
    const std::string name = entry.path().filename().string();
    int fd = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), fd);
    if (error == std::errc() && end == name.data() + name.size()) found.push_back(fd);
  }
  return found;
}

}  // namespace

Connections::Connections(keys::ServerKeys& keys, keys::Door door, std::string endpoint)
    : keys_(keys), door_(door), endpoint_(std::move(endpoint)), sweep_at_(kSweepFirst) {}

const keys::AllowedKey* Connections::of(const std::string& route, zmq::message_t& frame) {
  const auto found = known_.find(route);
  return found != known_.end() ? found->second.key : take_in(route, frame);
}

const keys::AllowedKey* Connections::find(const std::string& route) const {
  const auto found = known_.find(route);
  return found != known_.end() ? found->second.key : nullptr;
}

// The handler of handshakes has told libzmq the key, which attaches it to every message of the connection. Without a
// handler there is none, and the message is dropped.
const keys::AllowedKey* Connections::take_in(const std::string& route, zmq::message_t& frame) {
  const char* user = zmq_msg_gets(frame.handle(), "User-Id");
  if (user == nullptr) return nullptr;
  const auto public_key = keys::parse_public_key(user);
  if (!public_key.ok()) return nullptr;
  const keys::AllowedKey* key = keys_.allowed().find(public_key.value());
  if (key == nullptr || !key->may_enter(door_)) return nullptr;
  const int fd = zmq_msg_get(frame.handle(), ZMQ_SRCFD);
  if (known_.size() >= sweep_at_) sweep();
  known_[route] = {key, fd, socket_inode(fd).value_or(0)};
  return key;
}

// Routes of ended connections are not reused, and libzmq does not report their end.
void Connections::sweep() {
  std::erase_if(known_, [](const auto& item) { return socket_inode(item.second.fd) != item.second.inode; });
  sweep_at_ = std::max(kSweepFirst, 2 * known_.size());
}

std::vector<std::string> Connections::on_list_changed() {
  bool is_less = false;
  for (const keys::AllowedKey& before : keys_.allowed_before().keys()) {
    const keys::AllowedKey* now = keys_.allowed().find(before.key);
    is_less |= now == nullptr || *now != before;
  }
  std::vector<std::string> ended;
  for (auto& [route, connection] : known_) {
    const keys::AllowedKey* now = keys_.allowed().find(connection.key->key);
    if (now == nullptr || *now != *connection.key || !now->may_enter(door_)) {
      ended.push_back(route);
    } else {
      connection.key = now;
    }
  }
  for (const std::string& route : ended) known_.erase(route);
  if (is_less) end_unknown();
  return ended;
}

void Connections::end_unknown() const {
  std::set<std::pair<int, ino_t>> kept;
  for (const auto& [route, connection] : known_) kept.emplace(connection.fd, connection.inode);
  for (const int fd : open_descriptors()) {
    const std::optional<ino_t> inode = socket_inode(fd);
    if (!inode || kept.contains({fd, *inode}) || !is_accepted_at(fd, endpoint_)) continue;
    shutdown(fd, SHUT_RDWR);
  }
}

}  // namespace optserve::transport
