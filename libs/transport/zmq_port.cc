#include "transport/zmq_port.h"

#include <algorithm>
#include <cctype>
#include <cerrno>

#include "base/error.h"
#include "transport/reachability.h"

namespace optserve::transport {
namespace {

// Detects a dead network within 4 s; a peer that is up but cut off is found by nothing else.
constexpr int kHeartbeatMs = 1'000, kHeartbeatTimeoutMs = 3'000, kHeartbeatTtlMs = 4'000;
// An unfinished handshake holds a descriptor for this long.
constexpr int kHandshakeMs = 2'000;
constexpr int kBacklog = 4'096;
// libzmq adds a random part, so a fleet does not come back in step after a restart of the scheduler.
constexpr int kReconnectFirstMs = 200, kReconnectMaxMs = 2'000;
// A standby that begins to listen is to be found at once.
constexpr int kReconnectMaxOfSeveralMs = 500;
constexpr int kKeepaliveIdleS = 30, kKeepaliveIntervalS = 10, kKeepaliveCount = 3;
constexpr int kTcpUnackedMs = 15'000;

// How long a new connection waits to learn which addresses of its peer answer.
constexpr milliseconds kLookWait{200};

void apply_common(zmq::socket_t& socket, const PortOptions& options) {
  namespace opt = zmq::sockopt;
  socket.set(opt::linger, 0);
  socket.set(opt::maxmsgsize, static_cast<int64_t>(options.message_bytes_max));
  socket.set(opt::sndhwm, options.high_water_mark);
  socket.set(opt::rcvhwm, options.high_water_mark);
  socket.set(opt::handshake_ivl, kHandshakeMs);
  socket.set(opt::heartbeat_ivl, kHeartbeatMs);
  socket.set(opt::heartbeat_timeout, kHeartbeatTimeoutMs);
  socket.set(opt::heartbeat_ttl, kHeartbeatTtlMs);
  socket.set(opt::tcp_keepalive, 1);
  socket.set(opt::tcp_keepalive_idle, kKeepaliveIdleS);
  socket.set(opt::tcp_keepalive_intvl, kKeepaliveIntervalS);
  socket.set(opt::tcp_keepalive_cnt, kKeepaliveCount);
  socket.set(opt::tcp_maxrt, kTcpUnackedMs);
}

// One frame without waiting; false if none is there. A signal only interrupts.
bool receive_part(void* socket, zmq::message_t& part, const std::string& endpoint) {
  part.rebuild();
  while (zmq_msg_recv(part.handle(), socket, ZMQ_DONTWAIT) < 0) {
    if (errno == EAGAIN) return false;
    if (errno != EINTR) throw errno_error("receive on " + endpoint);
  }
  return true;
}

// False with errno set to EAGAIN or EHOSTUNREACH.
bool send_part(void* socket, std::string_view part, int flags, const std::string& endpoint) {
  while (zmq_send(socket, part.data(), part.size(), flags | ZMQ_DONTWAIT) < 0) {
    if (errno == EAGAIN || errno == EHOSTUNREACH) return false;
    if (errno != EINTR) throw errno_error("send on " + endpoint);
  }
  return true;
}

}  // namespace

ZmqPort::ZmqPort(zmq::context_t& context, Kind kind, const std::string& endpoint, const PortOptions& options)
    : context_(context), kind_(kind), endpoint_(endpoint), options_(options) {
  open();
}

// With IPv6 switched on a name resolves to IPv6 first, which a peer bound to 127.0.0.1 does not answer. So a new
// connection looks for a moment which family answers.
bool ZmqPort::needs_ipv6() const {
  if (endpoint_.find('[') != std::string::npos) return true;
  const std::string_view host = std::string_view(endpoint_).substr(std::min(endpoint_.find("//"), endpoint_.size()));
  const bool is_name = std::ranges::any_of(host, [](unsigned char c) { return std::isalpha(c) != 0; });
  if (is_router() || !is_name) return false;
  const auto found = BackgroundLook(endpoint_, kLookWait / 2).result(kLookWait);
  return found && found->needs_ipv6;
}

void ZmqPort::open() {
  try {
    zmq::socket_t socket(context_, is_router() ? zmq::socket_type::router : zmq::socket_type::dealer);
    apply_common(socket, options_);
    if (needs_ipv6()) socket.set(zmq::sockopt::ipv6, 1);
    if (is_router()) {
      socket.set(zmq::sockopt::router_mandatory, 1);
      socket.set(zmq::sockopt::backlog, kBacklog);
      socket.bind(endpoint_);
    } else {
      socket.set(zmq::sockopt::immediate, 1);
      socket.set(zmq::sockopt::reconnect_ivl, kReconnectFirstMs);
      const std::vector<std::string> places = alternatives_of(endpoint_);
      socket.set(zmq::sockopt::reconnect_ivl_max, places.size() > 1 ? kReconnectMaxOfSeveralMs : kReconnectMaxMs);
      // Only the one that leads listens, and `immediate` keeps messages from those that are not connected.
      for (const std::string& place : places) socket.connect(place);
    }
    socket_ = std::move(socket);
  } catch (const zmq::error_t& error) {
    throw Error((is_router() ? "listen on '" : "connect to '") + endpoint_ + "': " + error.what());
  }
}

Received ZmqPort::receive(std::string& route, zmq::message_t& payload) {
  route.clear();
  if (is_router()) {
    if (!receive_part(socket_.handle(), payload, endpoint_)) return Received::kNothing;
    route.assign(payload.data<char>(), payload.size());
    if (!payload.more()) return Received::kGarbage;
  }
  if (!receive_part(socket_.handle(), payload, endpoint_)) return Received::kNothing;
  if (!payload.more()) return Received::kFrame;
  while (payload.more() && receive_part(socket_.handle(), payload, endpoint_)) {
  }
  return Received::kGarbage;
}

Sent ZmqPort::send(const std::string& route, std::string_view payload) {
  if (is_router() && !send_part(socket_.handle(), route, ZMQ_SNDMORE, endpoint_)) {
    return errno == EAGAIN ? Sent::kSlow : Sent::kGone;
  }
  return send_part(socket_.handle(), payload, 0, endpoint_) ? Sent::kYes : Sent::kGone;
}

void ZmqPort::reconnect() {
  if (!is_router()) open();
}

void ZmqPort::set_linger(Duration linger) {
  socket_.set(zmq::sockopt::linger,
              static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(linger).count()));
}

std::string ZmqPort::last_endpoint() const { return socket_.get(zmq::sockopt::last_endpoint); }

}  // namespace optserve::transport
