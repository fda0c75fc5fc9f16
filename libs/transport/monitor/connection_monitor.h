// What libzmq tells about the connections of a socket, which only the socket's monitor learns. Internal to the
// component.
#pragma once

#include <cstdint>
#include <optional>
#include <zmq.hpp>

namespace optserve::transport {

class ConnectionMonitor {
 public:
  struct Event {
    uint16_t kind = 0;   // one of ZMQ_EVENT_*
    uint32_t value = 0;  // most kinds: the descriptor of the connection
  };

  // `events`: kinds, combined. To be made before `socket` is bound or connects, and to be destroyed before it is
  // closed. Throws zmq::error_t.
  ConnectionMonitor(zmq::context_t& context, zmq::socket_t& socket, int events);
  ~ConnectionMonitor();
  ConnectionMonitor(const ConnectionMonitor&) = delete;
  ConnectionMonitor& operator=(const ConnectionMonitor&) = delete;

  // The next event, in their order; nullopt: there is none. Never blocks.
  std::optional<Event> take();
  // Can be polled for events.
  void* handle() { return events_.handle(); }

 private:
  void* watched_;
  zmq::socket_t events_;
};

}  // namespace optserve::transport
