#include "transport/curve/handshake_watch.h"

#include <atomic>
#include <cstring>
#include <string>

namespace optserve::transport {
namespace {

constexpr int kEvents = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |
                        ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                        ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

std::string new_address() {
  static std::atomic<uint64_t> number{0};
  return "inproc://optserve-handshakes-" + std::to_string(number++);
}

}  // namespace

HandshakeWatch::HandshakeWatch(zmq::context_t& context, zmq::socket_t& socket)
    : watched_(socket.handle()), events_(context, zmq::socket_type::pair) {
  const std::string address = new_address();
  if (zmq_socket_monitor(socket.handle(), address.c_str(), kEvents) != 0) throw zmq::error_t();
  events_.set(zmq::sockopt::rcvhwm, 0);  // a full queue would block libzmq's own thread
  events_.set(zmq::sockopt::linger, 0);
  events_.connect(address);
}

// libzmq waits for a reader of its events as long as the monitor is on.
HandshakeWatch::~HandshakeWatch() { zmq_socket_monitor(watched_, nullptr, 0); }

HandshakeWatch::News HandshakeWatch::take_news() {
  News news = News::kNothing;
  zmq::message_t event, address;
  while (events_.recv(event, zmq::recv_flags::dontwait)) {
    if (event.more() && !events_.recv(address, zmq::recv_flags::dontwait)) break;
    uint16_t number = 0;
    if (event.size() < sizeof number) continue;
    std::memcpy(&number, event.data(), sizeof number);
    if (number == ZMQ_EVENT_CONNECTED) {
      is_open_ = true;
    } else if (number == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
      is_open_ = false;
      news = News::kSucceeded;
    } else if (number == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) {
      is_open_ = false;
      news = News::kRefused;
    } else if (is_open_) {  // the connection ended before its handshake did
      is_open_ = false;
      news = News::kFailed;
    }
  }
  return news;
}

}  // namespace optserve::transport
