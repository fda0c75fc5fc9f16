#include "cli/stack/free_ports.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <random>

#include "base/error.h"

namespace optserve::cli {

namespace {
constexpr int kFirstPort = 20'000;  // Linux uses 32768 and above for outgoing connections
constexpr int kLastPort = 29'999;
}  // namespace

bool is_port_free(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw errno_error("socket");
  const int on = 1;  // servers set it too, so that a connection in TIME_WAIT does not block the port
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool bound = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  close(fd);
  return bound;
}

std::vector<int> find_free_ports(int count) {
  std::random_device entropy;  // so that two stacks that start together try different ports
  std::uniform_int_distribution<int> any(kFirstPort, kLastPort);
  std::vector<int> ports;
  for (int attempt = 0; attempt < 100 * count && static_cast<int>(ports.size()) < count; ++attempt) {
    const int port = any(entropy);
    if (std::find(ports.begin(), ports.end(), port) == ports.end() && is_port_free(port)) ports.push_back(port);
  }
  if (static_cast<int>(ports.size()) < count) {
    throw Error("found " + std::to_string(ports.size()) + " free ports of " + std::to_string(count) + " between " +
                std::to_string(kFirstPort) + " and " + std::to_string(kLastPort));
  }
  return ports;
}

int find_free_port_block(int count) {
  std::random_device entropy;
  std::uniform_int_distribution<int> any(kFirstPort, kLastPort - count);
  constexpr int kAttempts = 200;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const int first = any(entropy);
    int free = 0;
    while (free < count && is_port_free(first + free)) ++free;
    if (free == count) return first;
  }
  throw Error("found no " + std::to_string(count) + " free ports in a row between " + std::to_string(kFirstPort) +
              " and " + std::to_string(kLastPort));
}

}  // namespace optserve::cli
