// TCP proxies between the processes of one machine, whose links can be delayed, stalled, cut, half-closed or made to
// swallow connections. Bytes are never lost or changed within a connection: TCP does not do that either. One thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

namespace optserve::chaos {

struct TcpAddress {
  std::string host = "127.0.0.1";
  int port = 0;  // 0, to listen: any free port
};

enum class Direction { kUp, kDown };  // towards the target, and back

// How a link treats its connections, present and future.
struct LinkRule {
  int64_t delay_ms = 0;   // for every byte, in both directions
  bool stall_up = false;  // nothing is read until the rule ends
  bool stall_down = false;
  bool swallow = false;  // new connections are accepted but not passed on
};

class TcpProxy {
 public:
  TcpProxy();  // throws Error
  ~TcpProxy();
  TcpProxy(const TcpProxy&) = delete;
  TcpProxy& operator=(const TcpProxy&) = delete;

  // Starts to listen; returns the link's number. Throws Error.
  int add_link(const TcpAddress& listen, const TcpAddress& target);
  int port(int link) const;
  void set_rule(int link, const LinkRule& rule);
  // Resets every connection of the link.
  void cut(int link);
  // Ends one direction of every connection of the link; the other direction stays.
  void half_close(int link, Direction direction);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace optserve::chaos
