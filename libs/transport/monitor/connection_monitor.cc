#include "transport/monitor/connection_monitor.h"

#include <atomic>
#include <cstring>
#include <string>

namespace optserve::transport {
namespace {

std::string new_address() {
  static std::atomic<uint64_t> number{0};
  return "inproc://optserve-connections-" + std::to_string(number++);
}

}  // namespace

ConnectionMonitor::ConnectionMonitor(zmq::context_t& context, zmq::socket_t& socket, int events)
    : watched_(socket.handle()), events_(context, zmq::socket_type::pair) {
  const std::string address = new_address();
  if (zmq_socket_monitor(socket.handle(), address.c_str(), events) != 0) throw zmq::error_t();
  events_.set(zmq::sockopt::rcvhwm, 0);  // a full queue would block libzmq's own thread
  events_.set(zmq::sockopt::linger, 0);
  events_.connect(address);
}

// libzmq waits for a reader of its events as long as the monitor is on.
ConnectionMonitor::~ConnectionMonitor() { zmq_socket_monitor(watched_, nullptr, 0); }

std::optional<ConnectionMonitor::Event> ConnectionMonitor::take() {
  zmq::message_t event, address;
  while (events_.recv(event, zmq::recv_flags::dontwait)) {
    if (event.more() && !events_.recv(address, zmq::recv_flags::dontwait)) break;
    Event taken;
    if (event.size() < sizeof taken.kind + sizeof taken.value) continue;
    std::memcpy(&taken.kind, event.data(), sizeof taken.kind);
    std::memcpy(&taken.value, event.data<char>() + sizeof taken.kind, sizeof taken.value);
    return taken;
  }
  return std::nullopt;
}

}  // namespace optserve::transport
