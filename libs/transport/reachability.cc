#include "transport/reachability.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <mutex>
#include <thread>

namespace optserve::transport {
namespace {

struct HostAndPort {
  std::string host, port;
};

std::optional<HostAndPort> host_of(const std::string& endpoint) {
  constexpr std::string_view kTcp = "tcp://";
  if (!endpoint.starts_with(kTcp)) return std::nullopt;
  const std::string rest = endpoint.substr(kTcp.size());
  const size_t colon = rest.rfind(':');
  if (colon == std::string::npos) return std::nullopt;
  std::string host = rest.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return HostAndPort{host, rest.substr(colon + 1)};
}

// Returns 0, or the errno with which the connection failed.
int try_to_connect(const addrinfo& address, Duration limit) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return errno;
  int error = connect(fd, address.ai_addr, address.ai_addrlen) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    pollfd entry{fd, POLLOUT, 0};
    const auto limit_ms = static_cast<int>(std::chrono::ceil<milliseconds>(limit).count());
    socklen_t size = sizeof error;
    if (poll(&entry, 1, limit_ms) <= 0) {
      error = ETIMEDOUT;
    } else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
      error = errno;
    }
  }
  close(fd);
  return error;
}

std::string lower_case_start(std::string text) {
  if (!text.empty()) text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  return text;
}

Reachability look_at_one(const std::string& endpoint, Duration limit) {
  const std::optional<HostAndPort> peer = host_of(endpoint);
  if (!peer) return {.is_reachable = true, .is_refused = false, .needs_ipv6 = false, .why = ""};
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int failed = getaddrinfo(peer->host.c_str(), peer->port.c_str(), &hints, &list); failed != 0) {
    return {.is_reachable = false,
            .is_refused = failed != EAI_AGAIN,
            .needs_ipv6 = false,
            .why = "the name '" + peer->host + "' cannot be resolved: " + lower_case_start(gai_strerror(failed))};
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, freeaddrinfo);
  Reachability found{.is_reachable = false, .is_refused = true, .needs_ipv6 = true, .why = "not tried"};
  for (const addrinfo* address = list; address != nullptr; address = address->ai_next) {
    const bool is_ipv6 = address->ai_family == AF_INET6;
    if (!is_ipv6 && !found.is_reachable) found.needs_ipv6 = false;
    if (limit == Duration::zero()) continue;
    const int error = try_to_connect(*address, limit);
    // A socket without IPv6 can use an address that answers by IPv4; one that answers by IPv6 counts only if no other
    // does.
    if (error == 0) {
      found = {.is_reachable = true, .is_refused = false, .needs_ipv6 = is_ipv6, .why = ""};
      if (!is_ipv6) return found;
    } else if (!found.is_reachable) {
      found.is_refused = found.is_refused && error == ECONNREFUSED;
      found.why = lower_case_start(std::strerror(error));
    }
  }
  return found;
}

}  // namespace

std::vector<std::string> alternatives_of(const std::string& endpoint) {
  std::vector<std::string> found;
  for (size_t begin = 0; begin <= endpoint.size();) {
    const size_t end = std::min(endpoint.find('|', begin), endpoint.size());
    found.push_back(endpoint.substr(begin, end - begin));
    begin = end + 1;
  }
  return found;
}

Reachability look_at(const std::string& endpoint, Duration limit) {
  const std::vector<std::string> places = alternatives_of(endpoint);
  Reachability all = look_at_one(places.front(), limit);
  for (size_t i = 1; i < places.size() && !all.is_reachable; ++i) {
    Reachability one = look_at_one(places[i], limit);
    one.is_refused = one.is_refused && all.is_refused;
    one.why = one.is_reachable ? "" : all.why + "; " + one.why;
    one.needs_ipv6 = one.needs_ipv6 || all.needs_ipv6;
    all = std::move(one);
  }
  return all;
}

struct BackgroundLook::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<Reachability> result;
};

BackgroundLook::BackgroundLook(const std::string& endpoint, Duration limit) : state_(std::make_shared<State>()) {
  sigset_t all, before;  // the thread inherits the mask, so signals go to the program's own threads
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([state = state_, endpoint, limit] {
    Reachability found = look_at(endpoint, limit);
    const std::lock_guard lock(state->mutex);
    state->result = std::move(found);
    state->changed.notify_all();
  }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

std::optional<Reachability> BackgroundLook::result(Duration wait) const {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait_for(lock, wait, [this] { return state_->result.has_value(); });
  return state_->result;
}

}  // namespace optserve::transport
