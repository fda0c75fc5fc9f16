// What became of the handshakes of a DEALER with keys: libzmq tells it to nobody but the monitor of the socket.
// Internal to the component.
#pragma once

#include <zmq.hpp>

namespace optserve::transport {

class HandshakeWatch {
 public:
  enum class News {
    kNothing,
    kSucceeded,
    kRefused,  // the peer knows our key, or what it is, and does not want it; libzmq gives up
    kFailed,   // the peer has another key than we expect, none at all, or is no ZeroMQ
  };

  // To be made before `socket` connects, and to be ended before it is closed. Throws zmq::error_t.
  HandshakeWatch(zmq::context_t& context, zmq::socket_t& socket);
  ~HandshakeWatch();
  HandshakeWatch(const HandshakeWatch&) = delete;
  HandshakeWatch& operator=(const HandshakeWatch&) = delete;

  // The last thing that happened since the last call. Never blocks.
  News take_news();

 private:
  void* watched_;
  zmq::socket_t events_;
  bool is_open_ = false;  // a connection whose handshake has neither succeeded nor failed
};

}  // namespace optserve::transport
