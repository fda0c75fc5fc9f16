// What a server's connections share. Internal to the component. Used only by the server's thread, unless a comment says
// otherwise.
#pragma once

#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "http/connection.h"
#include "http/event_handles.h"
#include "http/server.h"
#include "http/server_metrics.h"
#include "http/tls.h"

namespace optserve::http {

struct Server::Impl {
  struct Delayed {
    Impl* server = nullptr;
    EventPtr<event> timer;
    std::function<void()> work;
    std::list<Delayed>::iterator self;
  };

  Impl(const ServerOptions& its_options, const Clock& its_clock, ServerHooks its_hooks);

  void listen();
  void accept(evutil_socket_t fd, const sockaddr* peer);
  void pause_listening(milliseconds time);
  void resume_listening();
  void run_posted();
  void post(std::function<void()> work);  // from any thread
  void call_after(milliseconds delay, std::function<void()> work);
  void begin_drain();

  // Ends a connection. It is destroyed later, since its own functions may still run.
  void drop(Connection& connection);
  const std::string& date();
  Answer error_answer(const Request* request, int status, std::string_view message) const;

  const ServerOptions options;
  const Clock& clock;
  const ServerHooks hooks;
  Router router;
  ServerMetrics metrics;
  std::unique_ptr<Tls> tls;  // nullptr: connections are not encrypted

  EventPtr<event_base> base;
  EventPtr<event> stop, wake, reaper, resume;
  EventPtr<evconnlistener> listener;
  int port = 0;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> connections;
  std::vector<std::unique_ptr<Connection>> dropped;
  std::list<Delayed> delayed;
  size_t bodies_bytes = 0;  // of all requests, see ServerLimits
  std::string date_text;
  int64_t date_second = -1;
  bool is_draining = false;

  std::mutex mutex;  // guards what follows, which any thread uses
  std::condition_variable changed;
  std::vector<std::function<void()>> posted;
  bool is_drained = false;

  std::thread thread;
};

}  // namespace optserve::http
