#include "metrics/http_server.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <event2/thread.h>
#include <event2/util.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>
#include <unordered_map>

#include "base/error.h"
#include "metrics/process_metrics.h"

// libevent's own evhttp cannot bound the number of connections, and idle ones would use up the process's descriptors.
// What a scraper and a kubelet send is small enough to read here: a request line and headers that do not matter.

namespace optserve::metrics {
namespace {

constexpr size_t kRequestBytesMax = 8 << 10;
constexpr size_t kConnectionsMax = 8;
constexpr milliseconds kTextAgeMax{200};
constexpr timeval kDeadline{5, 0};

struct EventDeleter {
  void operator()(event_base* base) const { event_base_free(base); }
  void operator()(evconnlistener* listener) const { evconnlistener_free(listener); }
  void operator()(bufferevent* buffer) const { bufferevent_free(buffer); }
  void operator()(event* timer) const { event_free(timer); }
};
template <class T>
using EventPtr = std::unique_ptr<T, EventDeleter>;

struct Answer {
  int status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body;
};

const char* reason_of(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 431:
      return "Request Header Fields Too Large";
    default:
      return "Service Unavailable";
  }
}

std::string render(const Answer& answer, bool with_body) {
  std::string out = "HTTP/1.1 " + std::to_string(answer.status) + " " + reason_of(answer.status) + "\r\n";
  out += "Content-Type: " + answer.type + "\r\nContent-Length: " + std::to_string(answer.body.size()) + "\r\n";
  if (answer.status == 405) out += "Allow: GET, HEAD\r\n";
  out += "Cache-Control: no-store\r\nConnection: close\r\n\r\n";
  if (with_body) out += answer.body;
  return out;
}

Answer yes_or_no(bool yes, const char* good, const std::string& bad) {
  return yes ? Answer{200, {"text/plain; charset=utf-8"}, std::string(good) + "\n"}
             : Answer{503, {"text/plain; charset=utf-8"}, bad + "\n"};
}

}  // namespace

int64_t Health::now_ms() const {
  return std::chrono::duration_cast<milliseconds>(clock.now().time_since_epoch()).count();
}
void Health::stamp() { alive_at_ms.store(now_ms(), std::memory_order_relaxed); }

struct HttpServer::Impl {
  struct Connection {
    Impl* server = nullptr;
    EventPtr<bufferevent> buffer;
    EventPtr<event> deadline;
    bool answered = false;
  };

  Impl(const Registry& r, const Health& h) : registry(r), health(h) {}

  void listen(const std::string& address, int wanted_port);
  void accept(evutil_socket_t fd);
  void drop(Connection* connection);
  void read(Connection& connection);
  void answer(Connection& connection, const Answer& answer, bool with_body);
  Answer route(std::string_view path);
  Answer live() const;

  static void on_accept(evconnlistener*, evutil_socket_t fd, sockaddr*, int, void* self) {
    static_cast<Impl*>(self)->accept(fd);
  }
  static void on_accept_error(evconnlistener*, void*) {}  // out of descriptors: try again when the next one arrives
  static void on_read(bufferevent*, void* connection) {
    auto& c = *static_cast<Connection*>(connection);
    c.server->read(c);
  }
  // Called when the whole answer is written.
  static void on_written(bufferevent*, void* connection) {
    auto* c = static_cast<Connection*>(connection);
    if (c->answered) c->server->drop(c);
  }
  static void on_event(bufferevent*, short what, void* connection) {
    auto* c = static_cast<Connection*>(connection);
    if (c->answered && (what & BEV_EVENT_EOF) != 0) return;  // it closed its sending side and still reads
    c->server->drop(c);
  }
  static void on_deadline(evutil_socket_t, short, void* connection) {
    auto* c = static_cast<Connection*>(connection);
    c->server->drop(c);
  }
  static void on_stop(evutil_socket_t, short, void* self) {
    event_base_loopbreak(static_cast<Impl*>(self)->base.get());
  }

  const Registry& registry;
  const Health& health;
  EventPtr<event_base> base;
  EventPtr<event> stop;
  EventPtr<evconnlistener> listener;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> connections;
  std::string metrics_text;
  int64_t metrics_text_at_ms = 0;
  int port = 0;
  std::thread thread;
};

void HttpServer::Impl::listen(const std::string& address, int wanted_port) {
  const std::string where = "HTTP listener " + address + ":" + std::to_string(wanted_port);
  if (wanted_port < 0 || wanted_port > 65535) throw Error(where + ": expected a port from 0 to 65535");
  sockaddr_storage storage{};
  int size = sizeof storage;
  const std::string text = (address.find(':') != std::string::npos ? "[" + address + "]" : address) + ":" +
                           std::to_string(wanted_port == 0 ? 1 : wanted_port);
  auto* generic = reinterpret_cast<sockaddr*>(&storage);
  if (evutil_parse_sockaddr_port(text.c_str(), generic, &size) != 0) {
    throw Error(where + ": expected an IPv4 or IPv6 address");
  }
  const bool v6 = storage.ss_family == AF_INET6;
  if (wanted_port == 0) {  // the parser above refuses port 0
    (v6 ? reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port : reinterpret_cast<sockaddr_in*>(&storage)->sin_port) =
        0;
  }
  if (evthread_use_pthreads() != 0) throw Error("libevent: no thread support");
  base.reset(event_base_new());
  if (!base) throw Error("libevent: cannot create an event loop");
  stop.reset(event_new(base.get(), -1, EV_PERSIST, &Impl::on_stop, this));
  constexpr unsigned kFlags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
  listener.reset(evconnlistener_new_bind(base.get(), &Impl::on_accept, this, kFlags, 64, generic, size));
  if (!listener || !stop) throw errno_error(where);
  evconnlistener_set_error_cb(listener.get(), &Impl::on_accept_error);
  socklen_t length = sizeof storage;
  if (getsockname(evconnlistener_get_fd(listener.get()), generic, &length) != 0) throw errno_error(where);
  port = ntohs(v6 ? reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port
                  : reinterpret_cast<sockaddr_in*>(&storage)->sin_port);
}

void HttpServer::Impl::accept(evutil_socket_t fd) {
  if (connections.size() >= kConnectionsMax) {
    evutil_closesocket(fd);
    return;
  }
  evutil_make_socket_nonblocking(fd);
  auto connection = std::make_unique<Connection>();
  connection->server = this;
  connection->buffer.reset(bufferevent_socket_new(base.get(), fd, BEV_OPT_CLOSE_ON_FREE));
  if (!connection->buffer) {
    evutil_closesocket(fd);
    return;
  }
  connection->deadline.reset(evtimer_new(base.get(), &Impl::on_deadline, connection.get()));
  if (!connection->deadline || evtimer_add(connection->deadline.get(), &kDeadline) != 0) return;
  bufferevent_setcb(connection->buffer.get(), &Impl::on_read, &Impl::on_written, &Impl::on_event, connection.get());
  bufferevent_setwatermark(connection->buffer.get(), EV_READ, 0, kRequestBytesMax);
  bufferevent_enable(connection->buffer.get(), EV_READ | EV_WRITE);
  Connection* key = connection.get();
  connections.emplace(key, std::move(connection));
  if (connections.size() >= kConnectionsMax) evconnlistener_disable(listener.get());
}

void HttpServer::Impl::drop(Connection* connection) {
  connections.erase(connection);
  evconnlistener_enable(listener.get());
}

void HttpServer::Impl::read(Connection& connection) {
  evbuffer* input = bufferevent_get_input(connection.buffer.get());
  if (connection.answered) {
    evbuffer_drain(input, evbuffer_get_length(input));
    return;
  }
  const size_t size = std::min(evbuffer_get_length(input), kRequestBytesMax);
  const auto* data = reinterpret_cast<const char*>(evbuffer_pullup(input, static_cast<ssize_t>(size)));
  const std::string_view head(data, size);
  if (head.find("\r\n\r\n") == std::string_view::npos) {
    if (size >= kRequestBytesMax) answer(connection, {431, "text/plain", "request too large\n"}, true);
    return;
  }
  const std::string_view line = head.substr(0, head.find("\r\n"));
  const size_t space = line.find(' ');
  const size_t second = space == std::string_view::npos ? space : line.find(' ', space + 1);
  if (second == std::string_view::npos || !line.substr(second + 1).starts_with("HTTP/1.")) {
    answer(connection, {400, "text/plain", "expected an HTTP/1 request line\n"}, true);
    return;
  }
  const std::string_view method = line.substr(0, space);
  std::string_view path = line.substr(space + 1, second - space - 1);
  path = path.substr(0, path.find('?'));
  if (method != "GET" && method != "HEAD") {
    answer(connection, {405, "text/plain", "only GET and HEAD\n"}, true);
    return;
  }
  answer(connection, route(path), method == "GET");
}

void HttpServer::Impl::answer(Connection& connection, const Answer& answer, bool with_body) {
  connection.answered = true;
  evbuffer* input = bufferevent_get_input(connection.buffer.get());
  evbuffer_drain(input, evbuffer_get_length(input));
  const std::string bytes = render(answer, with_body);
  bufferevent_write(connection.buffer.get(), bytes.data(), bytes.size());
}

Answer HttpServer::Impl::live() const {
  const int64_t stamped = health.alive_at_ms.load(std::memory_order_relaxed);
  if (stamped == 0) return {200, "text/plain; charset=utf-8", "starting\n"};
  const int64_t age = health.now_ms() - stamped;
  return yes_or_no(age <= health.alive_within_ms, "ok",
                   "main loop has not turned for " + std::to_string(age) + " ms, at most " +
                       std::to_string(health.alive_within_ms) + " ms are allowed");
}

Answer HttpServer::Impl::route(std::string_view path) {
  if (path == "/livez") return live();
  if (path == "/startupz") return yes_or_no(health.started.load(), "ok", "not started yet");
  if (path == "/readyz") {
    if (!health.started.load()) return yes_or_no(false, "", "not started yet");
    const std::string problem = health.problem();
    return yes_or_no(health.ready.load(), "ok", "not ready for work" + (problem.empty() ? "" : ": " + problem));
  }
  if (path == "/metrics") {
    const int64_t now = health.now_ms();
    if (metrics_text.empty() || now - metrics_text_at_ms >= kTextAgeMax.count()) {
      metrics_text = registry.text() + process_metrics_text();
      metrics_text_at_ms = now;
    }
    return {200, "text/plain; version=0.0.4; charset=utf-8", metrics_text};
  }
  return {404, "text/plain; charset=utf-8", "not found; there are /metrics /livez /readyz /startupz\n"};
}

void Health::set_problem(const std::string& problem) {
  const std::lock_guard lock(mutex_);
  problem_ = problem;
}

std::string Health::problem() const {
  const std::lock_guard lock(mutex_);
  return problem_;
}

HttpServer::HttpServer(const std::string& address, int port, const Registry& registry, const Health& health)
    : impl_(std::make_unique<Impl>(registry, health)) {
  impl_->listen(address, port);
  sigset_t all, before;  // the thread inherits the mask: signals stay with the main thread
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  impl_->thread = std::thread([impl = impl_.get()] { event_base_loop(impl->base.get(), EVLOOP_NO_EXIT_ON_EMPTY); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

HttpServer::~HttpServer() {
  event_active(impl_->stop.get(), 0, 0);
  impl_->thread.join();
  impl_->connections.clear();
}

int HttpServer::port() const { return impl_->port; }

}  // namespace optserve::metrics
