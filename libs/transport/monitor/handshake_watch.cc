#include "transport/monitor/handshake_watch.h"

namespace optserve::transport {
namespace {

constexpr int kEvents = ZMQ_EVENT_CONNECTED | ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |
                        ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                        ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;

}  // namespace

HandshakeWatch::HandshakeWatch(zmq::context_t& context, zmq::socket_t& socket) : monitor_(context, socket, kEvents) {}

HandshakeWatch::News HandshakeWatch::take_news() {
  News news = News::kNothing;
  while (const auto event = monitor_.take()) {
    if (event->kind == ZMQ_EVENT_CONNECTED) {
      is_open_ = true;
    } else if (event->kind == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
      is_open_ = false;
      news = News::kSucceeded;
    } else if (event->kind == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH) {
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
