// One ZeroMQ socket, with settings that make losses visible and limit them. Internal to the component: other components
// use ServiceLoop.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
#include <zmq.hpp>

#include "transport/monitor/connection_ends.h"
#include "transport/monitor/handshake_watch.h"
#include "transport/service_loop.h"

namespace optserve::transport {

enum class Received {
  kNothing,  // no message waits
  kFrame,    // one payload frame
  kGarbage,  // a message with a different number of frames, which was read and dropped
};
enum class Sent {
  kYes,
  kGone,  // ROUTER: no such peer. DEALER: not connected, or the peer does not read
  kSlow,  // ROUTER: the peer's queue is full
};

class ZmqPort {
 public:
  enum class Kind { kRouter, kDealer };

  // Binds a ROUTER or connects a DEALER. Throws Error naming the endpoint.
  ZmqPort(zmq::context_t& context, Kind kind, const std::string& endpoint, const PortOptions& options);

  // Never blocks. `route` is empty on a DEALER.
  Received receive(std::string& route, zmq::message_t& payload);
  // Never blocks.
  Sent send(const std::string& route, std::string_view payload);
  // DEALER: replaces the connection by a new one, to the next of several addresses. If nothing came on it, the next of
  // the peer's possible keys is tried once all addresses have been tried.
  void reconnect();
  struct NotLetIn {
    std::string why;
    bool is_refusal;  // the peer has refused us; otherwise handshakes fail, which the network may cause too
  };
  // DEALER: checks the outcome of handshakes, and with keys tries again if libzmq does not.
  std::optional<NotLetIn> look_at_handshakes(Instant now);
  // DEALER: whether look_at_handshakes() has seen a new connection since the last call.
  bool take_is_new() { return std::exchange(is_new_, false); }
  // ROUTER: the peers whose connections have ended since the last call, of those that have sent something.
  std::vector<std::string> take_ended() { return ends_->take(); }
  bool has_ended() const { return ends_ && ends_->has_untold(); }  // receive() has come across one
  // Can be polled for what look_at_handshakes() and take_ended() look at.
  void* events_handle() { return is_router() ? ends_->handle() : handshakes_->handle(); }
  // DEALER with several addresses: connects to the next one if nobody has answered for a while; true if it did. It is
  // connected to one address at a time, so that all messages go to the same peer: a leader that was paused still has
  // its connection.
  bool look_around(Instant now);
  // How long closing may take to hand over what was sent.
  void set_linger(Duration linger);

  bool is_router() const { return kind_ == Kind::kRouter; }
  const PortOptions& options() const { return options_; }
  const std::string& endpoint() const { return endpoint_; }
  std::string last_endpoint() const;
  void* handle() { return socket_.handle(); }

 private:
  void open();
  bool needs_ipv6() const;
  void set_keys(zmq::socket_t& socket);

  zmq::context_t& context_;
  Kind kind_;
  std::string endpoint_;
  std::vector<std::string> places_;  // the addresses of the endpoint
  size_t place_ = 0;                 // the current one
  std::optional<Instant> alone_since_;
  PortOptions options_;
  zmq::socket_t socket_;
  std::unique_ptr<HandshakeWatch> handshakes_;  // of a DEALER; like the next, destroyed before socket_
  std::unique_ptr<ConnectionEnds> ends_;        // of a ROUTER
  size_t server_key_ = 0;                       // index of the one that is expected
  bool was_heard_ = false;                      // since the socket was opened
  bool is_new_ = false;
  std::optional<Instant> retry_at_;
  int failures_ = 0;  // handshakes in a row
};

}  // namespace optserve::transport
