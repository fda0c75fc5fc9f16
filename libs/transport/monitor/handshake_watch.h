// The outcome of the handshakes of a DEALER, which libzmq reports only to the monitor of the socket. Internal to the
// component.
#pragma once

#include <zmq.hpp>

#include "transport/monitor/connection_monitor.h"

namespace optserve::transport {

class HandshakeWatch {
 public:
  enum class News {
    kNothing,
    kSucceeded,
    kRefused,  // the peer does not allow our key; libzmq gives up
    kFailed,   // the peer has a different key than we expect or none, or does not speak ZeroMQ
  };

  // To be made before `socket` connects, and to be destroyed before it is closed. Throws zmq::error_t.
  HandshakeWatch(zmq::context_t& context, zmq::socket_t& socket);

  // The last thing that happened since the last call. Never blocks.
  News take_news();
  // Can be polled for news.
  void* handle() { return monitor_.handle(); }

 private:
  ConnectionMonitor monitor_;
  bool is_open_ = false;  // a connection whose handshake has neither succeeded nor failed
};

}  // namespace optserve::transport
