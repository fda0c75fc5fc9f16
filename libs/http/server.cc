#include "http/server.h"

#include <arpa/inet.h>
#include <event2/thread.h>
#include <event2/util.h>
#include <sys/socket.h>

#include <array>
#include <csignal>

#include "base/error.h"
#include "base/log.h"
#include "base/program.h"
#include "http/server_state.h"

namespace optserve::http {
namespace {

constexpr int kBacklog = 1'024;
constexpr milliseconds kPauseWithoutDescriptors{100};

std::string text_of(const sockaddr* address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  const void* bytes = address->sa_family == AF_INET6
                          ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr)
                          : &reinterpret_cast<const sockaddr_in*>(address)->sin_addr;
  return inet_ntop(address->sa_family, bytes, text.data(), text.size()) == nullptr ? "" : text.data();
}

struct ListenAddress {
  sockaddr_storage storage{};
  int size = sizeof storage;

  sockaddr* generic() { return reinterpret_cast<sockaddr*>(&storage); }
  in_port_t& port() {
    return storage.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port
                                         : reinterpret_cast<sockaddr_in*>(&storage)->sin_port;
  }
};

std::string where(const ServerOptions& options) {
  return "HTTP listener " + options.address + ":" + std::to_string(options.port);
}

ListenAddress parse_address(const ServerOptions& options) {
  if (options.port < 0 || options.port > 65535) {
    throw ConfigurationError(where(options) + ": expected a port from 0 to 65535");
  }
  ListenAddress address;
  const std::string host =
      options.address.find(':') != std::string::npos ? "[" + options.address + "]" : options.address;
  const std::string text = host + ":" + std::to_string(options.port == 0 ? 1 : options.port);
  if (evutil_parse_sockaddr_port(text.c_str(), address.generic(), &address.size) != 0) {
    throw ConfigurationError(where(options) + ": expected an IPv4 or IPv6 address");
  }
  if (options.port == 0) address.port() = 0;  // the parser refuses port 0
  return address;
}

}  // namespace

Server::Impl::Impl(const ServerOptions& its_options, const Clock& its_clock, ServerHooks its_hooks)
    : options(its_options), clock(its_clock), hooks(std::move(its_hooks)), metrics(its_options.registry) {}

void Server::Impl::listen() {
  if (!options.certificate_file.empty() || !options.key_file.empty()) {
    tls = std::make_unique<Tls>(options.certificate_file, options.key_file);
  }
  ListenAddress address = parse_address(options);
  if (evthread_use_pthreads() != 0) throw Error("libevent: no thread support");
  base.reset(event_base_new());
  if (!base) throw Error("libevent: cannot create an event loop");
  const auto on_stop = [](evutil_socket_t, short, void* self) {
    event_base_loopbreak(static_cast<Impl*>(self)->base.get());
  };
  const auto on_wake = [](evutil_socket_t, short, void* self) { static_cast<Impl*>(self)->run_posted(); };
  const auto on_reap = [](evutil_socket_t, short, void* self) { static_cast<Impl*>(self)->dropped.clear(); };
  const auto on_resume = [](evutil_socket_t, short, void* self) { static_cast<Impl*>(self)->resume_listening(); };
  stop.reset(event_new(base.get(), -1, EV_PERSIST, on_stop, this));
  wake.reset(event_new(base.get(), -1, EV_PERSIST, on_wake, this));
  reaper.reset(event_new(base.get(), -1, EV_PERSIST, on_reap, this));
  resume.reset(evtimer_new(base.get(), on_resume, this));
  if (!stop || !wake || !reaper || !resume) throw Error("libevent: cannot create an event");
  const auto on_accept = [](evconnlistener*, evutil_socket_t fd, sockaddr* peer, int, void* self) {
    static_cast<Impl*>(self)->accept(fd, peer);
  };
  constexpr unsigned kFlags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE | LEV_OPT_DISABLED;
  listener.reset(
      evconnlistener_new_bind(base.get(), on_accept, this, kFlags, kBacklog, address.generic(), address.size));
  if (!listener) throw errno_error(where(options));
  evconnlistener_set_error_cb(listener.get(), [](evconnlistener*, void* self) {
    static_cast<Impl*>(self)->pause_listening(kPauseWithoutDescriptors);
  });
  socklen_t length = sizeof address.storage;
  if (getsockname(evconnlistener_get_fd(listener.get()), address.generic(), &length) != 0) {
    throw errno_error(where(options));
  }
  port = ntohs(address.port());
}

void Server::Impl::accept(evutil_socket_t fd, const sockaddr* peer) {
  if (connections.size() >= options.limits.connections_max) {
    evutil_closesocket(fd);
    return;
  }
  auto connection = std::make_unique<Connection>(*this, text_of(peer));
  if (!connection->open(fd)) return;
  metrics.connections.add(1);
  Connection* key = connection.get();
  connections.emplace(key, std::move(connection));
  if (connections.size() >= options.limits.connections_max) evconnlistener_disable(listener.get());
}

void Server::Impl::pause_listening(milliseconds time) {
  evconnlistener_disable(listener.get());
  const timeval limit = to_timeval(time);
  evtimer_add(resume.get(), &limit);
}

void Server::Impl::resume_listening() {
  if (listener && connections.size() < options.limits.connections_max) evconnlistener_enable(listener.get());
}

void Server::Impl::drop(Connection& connection) {
  const auto found = connections.find(&connection);
  if (found == connections.end()) return;
  dropped.push_back(std::move(found->second));
  connections.erase(found);
  metrics.connections.add(-1);
  event_active(reaper.get(), 0, 0);
  if (!event_pending(resume.get(), EV_TIMEOUT, nullptr)) resume_listening();
  if (is_draining && connections.empty()) {
    const std::lock_guard lock(mutex);
    is_drained = true;
    changed.notify_all();
  }
}

const std::string& Server::Impl::date() {
  const int64_t now = clock.wall_ms();
  if (now / 1000 != date_second) {
    date_second = now / 1000;
    date_text = http_date(now);
  }
  return date_text;
}

Answer Server::Impl::error_answer(const Request* request, int status, std::string_view message) const {
  if (hooks.error_answer) return hooks.error_answer(request, status, message);
  Answer answer{.status = status, .body = std::string(message) + "\n"};
  if (status == 503) answer.headers.set("Retry-After", "1");
  return answer;
}

void Server::Impl::post(std::function<void()> work) {
  const std::lock_guard lock(mutex);
  posted.push_back(std::move(work));
  if (posted.size() == 1) event_active(wake.get(), 0, 0);
}

void Server::Impl::run_posted() {
  std::vector<std::function<void()>> batch;
  {
    const std::lock_guard lock(mutex);
    batch.swap(posted);
  }
  for (auto& work : batch) {
    work();
    work = nullptr;  // destroys what it holds before the next one runs
  }
}

void Server::Impl::call_after(milliseconds delay, std::function<void()> work) {
  delayed.push_back({.server = this, .timer = nullptr, .work = std::move(work), .self = {}});
  Delayed& entry = delayed.back();
  entry.self = std::prev(delayed.end());
  const auto on_time = [](evutil_socket_t, short, void* which) {
    auto& due = *static_cast<Delayed*>(which);
    const std::function<void()> its_work = std::move(due.work);
    due.server->delayed.erase(due.self);
    its_work();
  };
  entry.timer.reset(evtimer_new(base.get(), on_time, &entry));
  const timeval limit = to_timeval(delay);
  if (!entry.timer || evtimer_add(entry.timer.get(), &limit) != 0) throw Error("libevent: cannot create a timer");
}

void Server::Impl::begin_drain() {
  is_draining = true;
  evtimer_del(resume.get());
  listener.reset();
  std::vector<Connection*> present;
  for (const auto& [connection, owner] : connections) present.push_back(connection);
  for (Connection* connection : present) connection->end_soon();
  const std::lock_guard lock(mutex);
  is_drained = connections.empty();
  changed.notify_all();
}

Server::Server(const ServerOptions& options, const Clock& clock, ServerHooks hooks)
    : impl_(std::make_unique<Impl>(options, clock, std::move(hooks))) {
  impl_->listen();
}

Server::~Server() { stop(); }

void Server::stop() {
  if (impl_->thread.joinable()) {
    event_active(impl_->stop.get(), 0, 0);
    impl_->thread.join();
  }
  impl_->listener.reset();
  impl_->delayed.clear();
  std::vector<Connection*> present;
  for (const auto& [connection, owner] : impl_->connections) present.push_back(connection);
  for (Connection* connection : present) connection->lose();
  impl_->dropped.clear();
}

void Server::route(std::string method, std::string pattern, Handler handler, RouteLimits limits) {
  check(!impl_->thread.joinable(), "routes are added before the start");
  impl_->router.add({std::move(method), std::move(pattern), std::move(handler), limits});
}

std::vector<std::pair<std::string, std::string>> Server::route_names() const { return impl_->router.names(); }

void Server::start() {
  evconnlistener_enable(impl_->listener.get());
  sigset_t all, before;  // the thread inherits the mask: signals go to the main thread, and SIGPIPE ends nothing
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  impl_->thread = std::thread([impl = impl_.get()] { event_base_loop(impl->base.get(), EVLOOP_NO_EXIT_ON_EMPTY); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

int Server::port() const { return impl_->port; }

void Server::post(std::function<void()> work) { impl_->post(std::move(work)); }

void Server::call_after(milliseconds delay, std::function<void()> work) { impl_->call_after(delay, std::move(work)); }

bool Server::drain(milliseconds limit) {
  post([impl = impl_.get()] { impl->begin_drain(); });
  std::unique_lock lock(impl_->mutex);
  return impl_->changed.wait_for(lock, limit, [&] { return impl_->is_drained; });
}

}  // namespace optserve::http
