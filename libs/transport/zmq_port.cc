#include "transport/zmq_port.h"

#include <algorithm>
#include <cctype>
#include <cerrno>

#include "base/error.h"
#include "base/program.h"
#include "transport/curve/zap_handler.h"
#include "transport/locality.h"
#include "transport/reachability.h"

namespace optserve::transport {
namespace {

// Heartbeats detect a dead network within 4 s; nothing else finds a peer that is up but cut off.
constexpr int kHeartbeatMs = 1'000, kHeartbeatTimeoutMs = 3'000, kHeartbeatTtlMs = 4'000;
// An unfinished handshake can hold a descriptor for this long.
constexpr int kHandshakeMs = 2'000;
constexpr int kBacklog = 4'096;
// libzmq adds a random part, so that many services do not all come back at the same moment after a restart of the
// scheduler.
constexpr int kReconnectFirstMs = 100, kReconnectMaxMs = 2'000;
// How long one of several addresses may take to answer before the next one is tried.
constexpr milliseconds kAloneMax{500};
constexpr int kKeepaliveIdleS = 30, kKeepaliveIntervalS = 10, kKeepaliveCount = 3;
constexpr int kTcpUnackedMs = 15'000;

// The pause between attempts after a failed handshake. libzmq does not retry if the peer refuses the key.
constexpr milliseconds kNextKeyPause{100};
constexpr milliseconds kRefusedPause{1'000}, kFailedPauseMax{2'000};

// Refuses all peers if there is no handler. zmq.h has it only among drafts, but every libzmq since 4.3.0 supports it.
constexpr int kZapEnforceDomain = 93;

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

// Receives one frame without waiting; false if there is none. Retries after a signal.
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
    : context_(context), kind_(kind), endpoint_(endpoint), places_(alternatives_of(endpoint)), options_(options) {
  const bool has_keys = is_router() ? options_.server_keys != nullptr : options_.client_keys != nullptr;
  if (!has_keys && !options_.is_insecure) check_locality(endpoint_, is_router() ? Side::kListens : Side::kConnects);
  if (has_keys && zmq_has("curve") == 0) {
    throw ConfigurationError(
        "there are keys, but this libzmq was built without CURVE (libsodium); install Debian's "
        "libzmq5, or another that has it");
  }
  open();
}

void ZmqPort::set_keys(zmq::socket_t& socket) {
  namespace opt = zmq::sockopt;
  const auto bytes = [](const auto& key) { return zmq::const_buffer(key.data(), key.size()); };
  if (is_router()) {
    if (options_.server_keys == nullptr) return;
    socket.set(opt::curve_server, 1);
    socket.set(opt::curve_secretkey, bytes(options_.server_keys->own().bytes()));
    socket.set(opt::zap_domain, zap_domain(options_.door));
    const int one = 1;
    if (zmq_setsockopt(socket.handle(), kZapEnforceDomain, &one, sizeof one) != 0) throw zmq::error_t();
  } else if (options_.client_keys != nullptr) {
    const keys::SecretKey& own = options_.client_keys->own();
    const auto& servers = options_.client_keys->servers();
    socket.set(opt::curve_serverkey, bytes(servers[server_key_ % servers.size()].bytes));
    socket.set(opt::curve_publickey, bytes(own.public_key().bytes));
    socket.set(opt::curve_secretkey, bytes(own.bytes()));
  }
}

// With IPv6 switched on, a name resolves to IPv6 first, on which a peer bound to 127.0.0.1 does not answer. So a new
// connection first checks for a moment which family answers.
bool ZmqPort::needs_ipv6() const {
  const std::string& place = places_[place_];
  if (place.find('[') != std::string::npos) return true;
  const std::string_view host = std::string_view(place).substr(std::min(place.find("//"), place.size()));
  const bool is_name = std::ranges::any_of(host, [](unsigned char c) { return std::isalpha(c) != 0; });
  if (is_router() || !is_name) return false;
  const auto found = BackgroundLook(place, kLookWait / 2).result(kLookWait);
  return found && found->needs_ipv6;
}

void ZmqPort::open() {
  try {
    zmq::socket_t socket(context_, is_router() ? zmq::socket_type::router : zmq::socket_type::dealer);
    apply_common(socket, options_);
    set_keys(socket);
    std::unique_ptr<HandshakeWatch> handshakes;
    std::unique_ptr<ConnectionEnds> ends;
    if (is_router()) {
      ends = std::make_unique<ConnectionEnds>(context_, socket);
    } else {
      handshakes = std::make_unique<HandshakeWatch>(context_, socket);
    }
    if (needs_ipv6()) socket.set(zmq::sockopt::ipv6, 1);
    if (is_router()) {
      socket.set(zmq::sockopt::router_mandatory, 1);
      socket.set(zmq::sockopt::backlog, kBacklog);
      socket.bind(endpoint_);
    } else {
      socket.set(zmq::sockopt::immediate, 1);
      socket.set(zmq::sockopt::reconnect_ivl, kReconnectFirstMs);
      socket.set(zmq::sockopt::reconnect_ivl_max, kReconnectMaxMs);
      socket.connect(places_[place_]);
    }
    handshakes_.reset();
    ends_.reset();
    socket_ = std::move(socket);
    handshakes_ = std::move(handshakes);
    ends_ = std::move(ends);
    was_heard_ = false;
    retry_at_.reset();
  } catch (const zmq::error_t& error) {
    const std::string what = (is_router() ? "listen on '" : "connect to '") + endpoint_ + "': " + error.what();
    // A malformed address stays malformed, but an address may be in use, or a name unknown, only for the moment.
    if (error.num() == EINVAL || error.num() == EPROTONOSUPPORT || error.num() == ENOCOMPATPROTO) {
      throw ConfigurationError(what);
    }
    throw Error(what);
  }
}

Received ZmqPort::receive(std::string& route, zmq::message_t& payload) {
  route.clear();
  if (is_router()) {
    if (!receive_part(socket_.handle(), payload, endpoint_)) {
      ends_->note_all_read();
      return Received::kNothing;
    }
    route.assign(payload.data<char>(), payload.size());
    if (!payload.more()) return Received::kGarbage;
  }
  if (!receive_part(socket_.handle(), payload, endpoint_)) return Received::kNothing;
  was_heard_ = true;
  if (is_router()) ends_->note(route, payload);
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
  if (is_router()) return;
  place_ = (place_ + 1) % places_.size();
  if (!was_heard_ && place_ == 0) ++server_key_;
  open();
}

std::optional<ZmqPort::NotLetIn> ZmqPort::look_at_handshakes(Instant now) {
  if (is_router()) return std::nullopt;
  if (retry_at_ && now >= *retry_at_) open();
  const HandshakeWatch::News news = handshakes_->take_news();
  is_new_ |= news == HandshakeWatch::News::kSucceeded;
  if (options_.client_keys == nullptr) return std::nullopt;  // libzmq tries again by itself
  switch (news) {
    case HandshakeWatch::News::kNothing:
      break;
    case HandshakeWatch::News::kSucceeded:
      failures_ = 0;
      break;
    case HandshakeWatch::News::kRefused:
      retry_at_ = now + kRefusedPause;
      return NotLetIn{"it does not allow the key " + options_.client_keys->own().public_key().text() +
                          "; `optserve keys allow` there lets it in",
                      true};
    case HandshakeWatch::News::kFailed:
      ++server_key_;
      retry_at_ = now + std::min(++failures_ * kNextKeyPause, kFailedPauseMax);
      if (failures_ < static_cast<int>(2 * options_.client_keys->servers().size())) break;
      return NotLetIn{"it does not have the secret key that belongs to --server-key, or has no keys at all", false};
  }
  return std::nullopt;
}

bool ZmqPort::look_around(Instant now) {
  if (is_router() || places_.size() < 2) return false;
  // With `immediate`, a socket can only be written to while it is connected.
  if ((socket_.get(zmq::sockopt::events) & ZMQ_POLLOUT) != 0) {
    alone_since_.reset();
    return false;
  }
  if (!alone_since_) alone_since_ = now;
  if (now - *alone_since_ < kAloneMax) return false;
  alone_since_.reset();
  reconnect();
  return true;
}

void ZmqPort::set_linger(Duration linger) {
  socket_.set(zmq::sockopt::linger,
              static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(linger).count()));
}

std::string ZmqPort::last_endpoint() const { return socket_.get(zmq::sockopt::last_endpoint); }

}  // namespace optserve::transport
