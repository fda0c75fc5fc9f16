#include "http/connection.h"

#include <event2/buffer.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "http/server_state.h"

namespace optserve::http {
namespace {

constexpr size_t kInputBytesMax = 64 << 10;  // that wait in memory while the previous request is answered
constexpr milliseconds kLingerTime{2'000};
constexpr size_t kLingerBytesMax = 16 << 20;
constexpr milliseconds kProbeInterval{200};
constexpr size_t kIgnoredBodyBytesMax = 64 << 10;  // of a request that is refused anyway
constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

std::string chunk_head(size_t bytes) {
  char text[24];
  std::snprintf(text, sizeof text, "%zx\r\n", bytes);
  return text;
}

}  // namespace

Connection::Connection(Server::Impl& server, std::string peer) : server_(server), peer_(std::move(peer)) {}

Connection::~Connection() {
  *self_ = nullptr;
  release_body();
}

bool Connection::open(evutil_socket_t fd) {
  evutil_make_socket_nonblocking(fd);
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // tokens are sent one by one
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);  // detects a peer that has lost power
  if (server_.tls) server_.tls->refresh(server_.clock.now());
  buffer_.reset(server_.tls ? server_.tls->accept(server_.base.get(), fd)
                            : bufferevent_socket_new(server_.base.get(), fd, BEV_OPT_CLOSE_ON_FREE));
  if (!buffer_) {
    evutil_closesocket(fd);
    return false;
  }
  timer_.reset(evtimer_new(server_.base.get(), &Connection::on_timer, this));
  if (!timer_) return false;
  begin_request();
  set_timer(server_.options.limits.request_timeout);
  const timeval write_limit = to_timeval(server_.options.limits.answer_timeout);
  bufferevent_set_timeouts(buffer_.get(), nullptr, &write_limit);
  bufferevent_setcb(buffer_.get(), &on_read, &on_written, &on_event, this);
  bufferevent_setwatermark(buffer_.get(), EV_READ, 0, kInputBytesMax);
  return bufferevent_enable(buffer_.get(), EV_READ | EV_WRITE) == 0;
}

void Connection::on_read(bufferevent*, void* self) { static_cast<Connection*>(self)->read(); }
void Connection::on_written(bufferevent*, void* self) { static_cast<Connection*>(self)->flushed(); }

void Connection::on_event(bufferevent*, short what, void* self) {
  auto& connection = *static_cast<Connection*>(self);
  if ((what & BEV_EVENT_CONNECTED) != 0) return;  // the TLS handshake is done
  if ((what & BEV_EVENT_EOF) != 0) return connection.peer_closed();
  connection.lose();
}

void Connection::on_timer(evutil_socket_t, short, void* self) {
  auto& connection = *static_cast<Connection*>(self);
  switch (connection.phase_) {
    case Phase::kReading:
      return connection.fail_request(408, "the request did not arrive as a whole within its time");
    case Phase::kAnswering:
      return connection.probe();
    default:
      return connection.lose();
  }
}

void Connection::set_timer(milliseconds time) {
  const timeval limit = to_timeval(time);
  evtimer_add(timer_.get(), &limit);
}

// --- reading

void Connection::begin_request() {
  phase_ = Phase::kIdle;
  reader_ = std::make_unique<RequestReader>(server_.options.limits.head);
  route_ = nullptr;
  early_answer_.reset();
  status_ = 0;
  framing_ = Framing::kLength;
  body_bytes_ = 0;
  has_body_ = true;
}

void Connection::read() {
  evbuffer* input = bufferevent_get_input(buffer_.get());
  if (phase_ == Phase::kLingering) {
    lingered_bytes_ += evbuffer_get_length(input);
    evbuffer_drain(input, evbuffer_get_length(input));
    if (lingered_bytes_ > kLingerBytesMax) lose();
    return;
  }
  take_input();
}

// Reads requests until one waits for its answer or for more bytes.
void Connection::take_input() {
  if (is_taking_) return;
  is_taking_ = true;
  evbuffer* input = bufferevent_get_input(buffer_.get());
  while ((phase_ == Phase::kIdle || phase_ == Phase::kReading) && !waits_for_sink_ && evbuffer_get_length(input) > 0) {
    evbuffer_iovec piece{};
    evbuffer_peek(input, -1, nullptr, &piece, 1);
    const size_t used = reader_->feed({static_cast<const char*>(piece.iov_base), piece.iov_len});
    evbuffer_drain(input, used);
    server_.metrics.received_bytes.add(static_cast<double>(used));
    if (phase_ == Phase::kIdle && reader_->has_begun()) {
      phase_ = Phase::kReading;
      request_begun_ = server_.clock.now();
      if (!is_first_) set_timer(server_.options.limits.request_timeout);
    }
    if (reader_->state() == RequestReader::State::kHeadDone) route_request();
    limit_bodies();
    wait_for_sink();
    if (reader_->state() == RequestReader::State::kDone) handle_request();
    if (reader_->state() == RequestReader::State::kFailed && phase_ == Phase::kReading) {
      keeps_alive_ = false;
      if (early_answer_) {
        handle_request();
        break;
      }
      fail_request(reader_->status(), reader_->message());
    }
  }
  is_taking_ = false;
}

// Stops reading: the buffers of the operating system fill up, and then the peer must wait.
void Connection::wait_for_sink() {
  if (phase_ != Phase::kReading || reader_->state() != RequestReader::State::kBody) return;
  const std::shared_ptr<BodySink>& sink = reader_->request().sink;
  if (!sink || !sink->is_full()) return;
  waits_for_sink_ = true;
  bufferevent_disable(buffer_.get(), EV_READ);
}

std::function<void()> Connection::resume_reading() {
  return [&server = server_, self = std::weak_ptr(self_)] {
    server.post([self] {
      const std::shared_ptr<Connection*> found = self.lock();
      if (!found || *found == nullptr) return;
      Connection& connection = **found;
      if (!connection.waits_for_sink_ || connection.phase_ == Phase::kEnded) return;
      connection.waits_for_sink_ = false;
      bufferevent_enable(connection.buffer_.get(), EV_READ);
      connection.wait_for_sink();  // it may still be full
      connection.take_input();
    });
  };
}

// Called when the head has arrived: decides who answers, and how large the body may be.
void Connection::route_request() {
  Request& request = reader_->request();
  request.peer = peer_;
  Router::Match match = server_.router.find(request.method, request.target);
  route_ = match.route;
  if (route_ != nullptr) {
    request.route = route_->pattern;
    request.parameters = std::move(match.parameters);
  }
  has_body_ = request.method != "HEAD";
  if (server_.hooks.on_request) early_answer_ = server_.hooks.on_request(request);
  if (!early_answer_ && route_ == nullptr) {
    if (match.allow.empty()) {
      early_answer_ = server_.error_answer(&request, 404, "there is no " + request.target.path + " here");
    } else if (request.method == "OPTIONS") {
      early_answer_ = Answer{.status = 204, .content_type = "", .body = "", .headers = {{"Allow", match.allow}}};
    } else {
      early_answer_ = server_.error_answer(&request, 405, request.target.path + " takes " + match.allow);
      early_answer_->headers.set("Allow", match.allow);
    }
  }
  if (early_answer_ && reader_->wants_continue()) {
    keeps_alive_ = false;  // the peer may or may not send its body
    return handle_request();
  }
  if (!early_answer_ && route_->limits.body_sink) request.sink = route_->limits.body_sink(request, resume_reading());
  if (!early_answer_ && route_->limits.request_timeout > milliseconds(0)) set_timer(route_->limits.request_timeout);
  reader_->begin_body(early_answer_ ? kIgnoredBodyBytesMax : route_->limits.body_bytes_max);
  if (reader_->wants_continue() && reader_->state() == RequestReader::State::kBody) send(kContinue);
}

// Keeps all bodies together within their limit. A body counts with the full size that it will have.
void Connection::limit_bodies() {
  if (phase_ != Phase::kReading || reader_->state() == RequestReader::State::kHead) return;
  if (reader_->request().sink) return;  // the body does not stay in memory
  const size_t bytes = std::max<size_t>(reader_->request().body.size(), reader_->content_length());
  if (reader_->state() == RequestReader::State::kFailed || bytes <= counted_body_bytes_) return;
  server_.bodies_bytes += bytes - counted_body_bytes_;
  counted_body_bytes_ = bytes;
  if (server_.bodies_bytes > server_.options.limits.bodies_bytes_max) {
    fail_request(503, "too many requests are being received at this moment");
  }
}

void Connection::release_body() {
  server_.bodies_bytes -= counted_body_bytes_;
  counted_body_bytes_ = 0;
}

void Connection::handle_request() {
  if (phase_ != Phase::kReading) return;
  phase_ = Phase::kAnswering;
  evtimer_del(timer_.get());
  request_read_ = server_.clock.now();
  keeps_alive_ = keeps_alive_ && !server_.is_draining && reader_->keeps_alive();
  const auto exchange = std::make_shared<Exchange>(*this, std::move(reader_->request()));
  exchange_ = exchange.get();
  if (early_answer_) return exchange->answer(*early_answer_);
  try {
    route_->handler(exchange);
  } catch (const std::exception& error) {
    log_error("http_handler_failed", {{"route", route_->pattern}, {"cause", error.what()}});
    if (exchange->is_streaming()) {
      exchange->abort();
    } else if (exchange->is_open()) {
      exchange->refuse(500, "the server failed");
    }
  }
}

// Answers a request that cannot be read, and ends the connection.
void Connection::fail_request(int status, std::string_view message) {
  keeps_alive_ = false;
  phase_ = Phase::kReading;
  if (std::exchange(waits_for_sink_, false)) bufferevent_enable(buffer_.get(), EV_READ);
  Request& request = reader_->request();
  request.peer = peer_;
  early_answer_ = server_.error_answer(request.method.empty() ? nullptr : &request, status, message);
  handle_request();
}

// --- answering

void Connection::send(std::string_view bytes) {
  server_.metrics.sent_bytes.add(static_cast<double>(bytes.size()));
  bufferevent_write(buffer_.get(), bytes.data(), bytes.size());
}

void Connection::send_body(std::string_view bytes) {
  if (body_bytes_ == 0) {
    first_byte_ = server_.clock.now();
    server_.metrics.observe_first_byte(exchange_->request().route, first_byte_ - request_read_);
  }
  body_bytes_ += bytes.size();
  send(bytes);
}

void Connection::send_head(int status, const Headers& headers, Framing framing, size_t content_length) {
  status_ = status;
  framing_ = framing;
  if (framing == Framing::kUntilClose) keeps_alive_ = false;
  const int minor_version = exchange_->request().minor_version;
  send(render({.status = status,
               .headers = headers,
               .framing = framing,
               .content_length = content_length,
               .keep_alive = keeps_alive_,
               .minor_version = minor_version,
               .date = server_.date()}));
}

void Connection::answer(const Answer& answer) {
  check(status_ == 0, "a request is answered once");
  Headers headers = answer.headers;
  if (!answer.content_type.empty()) headers.set("Content-Type", answer.content_type);
  if (server_.hooks.add_headers) server_.hooks.add_headers(&exchange_->request(), headers);
  send_head(answer.status, headers, Framing::kLength, answer.body.size());
  if (has_body_ && !answer.body.empty() && answer.status != 204 && answer.status != 304) send_body(answer.body);
  finish(true);
}

void Connection::refuse(int status, std::string_view message) {
  answer(server_.error_answer(&exchange_->request(), status, message));
}

void Connection::begin_stream(int status, const Headers& headers) {
  check(status_ == 0, "a request is answered once");
  Headers all = headers;
  if (server_.hooks.add_headers) server_.hooks.add_headers(&exchange_->request(), all);
  send_head(status, all, exchange_->request().minor_version > 0 ? Framing::kChunks : Framing::kUntilClose, 0);
  server_.metrics.streams.add(1);
}

void Connection::write(std::string_view piece) {
  check(status_ != 0, "a stream is begun before it is written");
  if (piece.empty() || !has_body_) return;
  if (framing_ == Framing::kChunks) send(chunk_head(piece.size()));
  send_body(piece);
  if (framing_ == Framing::kChunks) send("\r\n");
  const size_t waiting = buffered_bytes();
  const size_t limit = server_.options.limits.stream_bytes_max;
  if (waiting <= limit) return;
  if (!exchange_->on_slow_ || waiting > 4 * limit) return lose();
  if (exchange_->is_slow_) return;
  exchange_->is_slow_ = true;
  const auto on_slow = exchange_->on_slow_;  // may end the exchange, and its callbacks with it
  on_slow();
}

void Connection::end_stream() {
  check(status_ != 0, "a stream is begun before it is ended");
  if (framing_ == Framing::kChunks && has_body_) send("0\r\n\r\n");
  finish(true);
}

void Connection::abort() {
  evbuffer* output = bufferevent_get_output(buffer_.get());
  const size_t waiting = evbuffer_get_length(output);
  bufferevent_disable(buffer_.get(), EV_READ | EV_WRITE);
  if (server_.tls) {
    if (waiting > 0) Tls::write_now(buffer_.get(), {reinterpret_cast<char*>(evbuffer_pullup(output, -1)), waiting});
  } else {
    evbuffer_unfreeze(output, 1);
    while (evbuffer_get_length(output) > 0 && evbuffer_write(output, bufferevent_getfd(buffer_.get())) > 0) {
    }
  }
  if (exchange_ != nullptr) exchange_->on_closed_ = nullptr;
  lose();
}

// With chunks, the missing last chunk shows that the answer is incomplete. If the end of the connection is the end of
// the answer, only a reset shows it.
void Connection::show_incomplete() {
  if (framing_ != Framing::kUntilClose) return;
  const struct linger reset { 1, 0 };
  setsockopt(bufferevent_getfd(buffer_.get()), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

void Connection::abandon() {
  if (status_ != 0) return abort();
  refuse(500, "the request was not answered");
}

size_t Connection::buffered_bytes() const { return evbuffer_get_length(bufferevent_get_output(buffer_.get())); }

// Called when the answer is complete and only has to be sent.
void Connection::finish(bool is_complete) {
  Exchange* exchange = exchange_;
  phase_ = Phase::kFlushing;
  report(*exchange, is_complete);
  exchange->detach();
  set_timer(server_.options.limits.answer_timeout);
}

void Connection::report(const Exchange& exchange, bool is_complete) {
  exchange_ = nullptr;
  release_body();
  if (exchange.is_streaming()) server_.metrics.streams.add(-1);
  const int status = status_ == 0 ? 499 : status_;
  server_.metrics.count_request(exchange.request().route, exchange.request().method, status,
                                server_.clock.now() - request_begun_);
  if (!server_.hooks.on_finished) return;
  server_.hooks.on_finished({.request = exchange.request(),
                             .status = status,
                             .is_complete = is_complete,
                             .body_bytes = body_bytes_,
                             .first_byte = body_bytes_ > 0 ? first_byte_ - request_read_ : Duration::zero(),
                             .total = server_.clock.now() - request_begun_});
}

// --- between requests, and the end

// Called when the operating system has taken everything that was written.
void Connection::flushed() {
  if (buffered_bytes() > 0) return;
  if (phase_ == Phase::kAnswering && exchange_->is_streaming_) {
    exchange_->is_slow_ = false;
    if (const auto on_drained = exchange_->on_drained_; on_drained) on_drained();
    return;
  }
  if (phase_ != Phase::kFlushing) return;
  if (!keeps_alive_) return linger();
  is_first_ = false;
  begin_request();
  set_timer(server_.options.limits.idle_timeout);
  take_input();
  if (peer_closed_ && (phase_ == Phase::kIdle || phase_ == Phase::kReading)) lose();
}

void Connection::peer_closed() {
  peer_closed_ = true;
  if (phase_ == Phase::kFlushing) return;
  if (phase_ != Phase::kAnswering) return lose();
  // The peer has gone, or has closed its sending side and still reads. Only a packet shows which: a peer that has gone
  // answers it with a reset. An interim answer serves as this packet, since every HTTP/1.1 client must skip it. An
  // HTTP/1.0 peer, such as a proxy, does not know interim answers, so it is taken to have gone.
  if (exchange_->request().minor_version == 0) return lose();
  set_timer(kProbeInterval);
  if (status_ == 0) return send(kContinue);
  if (const auto on_half_closed = exchange_->on_half_closed_; on_half_closed) on_half_closed();
}

// libevent does not watch a descriptor while nothing is to be read or written.
void Connection::probe() {
  pollfd entry{bufferevent_getfd(buffer_.get()), 0, 0};
  if (poll(&entry, 1, 0) > 0 && (entry.revents & (POLLERR | POLLHUP)) != 0) return lose();
  set_timer(kProbeInterval);
}

// The peer may still be sending, and a reset could overtake the answer. So the connection is half closed, and what
// still comes is thrown away for a while.
void Connection::linger() {
  if (peer_closed_) return lose();
  if (server_.tls) Tls::announce_end(buffer_.get());
  shutdown(bufferevent_getfd(buffer_.get()), SHUT_WR);
  phase_ = Phase::kLingering;
  if (server_.is_draining) return lose();  // a drain does not wait for peers to close
  set_timer(kLingerTime);
  read();
}

void Connection::end_soon() {
  if (phase_ == Phase::kIdle || phase_ == Phase::kLingering) return lose();
  keeps_alive_ = false;
}

void Connection::lose() {
  if (phase_ == Phase::kEnded) return;
  phase_ = Phase::kEnded;
  if (Exchange* exchange = exchange_; exchange != nullptr) {
    show_incomplete();
    report(*exchange, false);
    const auto on_closed = exchange->on_closed_;
    exchange->detach();
    if (on_closed) on_closed();
  }
  server_.drop(*this);
}

}  // namespace optserve::http
