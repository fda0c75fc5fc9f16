#include "transport/locality.h"

#include <arpa/inet.h>

#include <algorithm>
#include <string_view>

#include "base/program.h"
#include "transport/reachability.h"

namespace optserve::transport {
namespace {

bool is_loopback_host(const std::string& host) {
  if (host == "localhost") return true;
  in_addr four{};
  if (inet_pton(AF_INET, host.c_str(), &four) == 1) return (ntohl(four.s_addr) >> 24) == 127;
  in6_addr six{};
  return inet_pton(AF_INET6, host.c_str(), &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six) != 0;
}

bool is_local_place(const std::string& endpoint) {
  constexpr std::string_view kTcp = "tcp://";
  if (endpoint.starts_with("ipc://") || endpoint.starts_with("inproc://")) return true;
  if (!endpoint.starts_with(kTcp)) return false;
  std::string host = endpoint.substr(kTcp.size());
  // "tcp://SOURCE;HOST:PORT" connects from one address to another.
  if (host.find(';') != std::string::npos) return false;
  host = host.substr(0, host.rfind(':'));
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return is_loopback_host(host);
}

}  // namespace

bool is_local(const std::string& endpoint) { return std::ranges::all_of(alternatives_of(endpoint), is_local_place); }

void check_locality(const std::string& endpoint, Side side) {
  if (is_local(endpoint)) return;
  const bool listens = side == Side::kListens;
  throw ConfigurationError(
      (listens ? "listen on '" : "connect to '") + endpoint + "': others reach that, and there are no keys. " +
      (listens ? "Make them with `optserve keys new scheduler` and `optserve keys allow`, and give --secret-key and "
                 "--allowed-keys"
               : "Make one with `optserve keys new NAME`, have it allowed with `optserve keys allow`, and give "
                 "--secret-key and --server-key") +
      " (docs/security.md); or give --insecure, where the network keeps others out");
}

}  // namespace optserve::transport
