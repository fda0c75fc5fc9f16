// An HTTP/1.1 and HTTP/1.0 server with one thread, which runs the event loop and all handlers.
//
//   Server server({.address = "127.0.0.1", .port = 8000}, clock, {});
//   server.route("GET", "/v1/jobs/{id}", [&](std::shared_ptr<Exchange> exchange) { ... });
//   server.start();
//
// No peer can tie up resources for long: a request must arrive completely within its time limit, an answer must be read
// within its time limit, and there are limits on what waits for a slow reader, on connections and on the bytes of all
// bodies.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "http/exchange.h"
#include "http/message/answer.h"
#include "http/message/request.h"
#include "http/message/request_reader.h"
#include "http/router.h"
#include "metrics/metrics.h"

namespace optserve::http {

struct ServerLimits {
  HeadLimits head{};
  size_t connections_max = 4'000;        // further ones wait in the backlog of the socket
  size_t bodies_bytes_max = 256 << 20;   // of the bodies of all current requests; more are refused with 503
  size_t stream_bytes_max = 1 << 20;     // of one stream that wait for its reader: see Exchange::on_slow()
  milliseconds request_timeout{30'000};  // for a whole request; for the first one, from the start of the connection
  milliseconds idle_timeout{75'000};     // between two requests on a connection
  milliseconds answer_timeout{60'000};   // for the peer to read the rest of a complete answer, or anything of a stream
};

struct ServerOptions {
  std::string address = "127.0.0.1";  // IPv4 or IPv6
  int port = 0;                       // 0: any free one
  // TLS: PEM files of the certificate with its chain, and of its key. If both are empty, connections are not encrypted.
  std::string certificate_file{}, key_file{};
  ServerLimits limits{};
  metrics::Registry* registry = nullptr;  // for counts by route and code; nullptr: nothing is counted
};

// How a request ended, for access logs.
struct Finished {
  const Request& request;
  int status = 0;            // that was sent; 499 if the peer had gone before
  bool is_complete = false;  // the answer was sent as a whole, as far as the server knows
  uint64_t body_bytes = 0;   // of the answer
  Duration first_byte{};     // from the end of the request to the first byte of the answer's body
  Duration total{};          // from the first byte of the request to the end of the answer
};

// What the owner of the server adds to every request. All run on the server's thread, and each may be empty.
struct ServerHooks {
  // Called when the head of a request has arrived, before its body is read. It may set Request::id, and it refuses the
  // request by returning an answer.
  std::function<std::optional<Answer>(Request& request)> on_request{};
  // Adds header fields to an answer. `request` is null if the request could not be read.
  std::function<void(const Request* request, Headers& headers)> add_headers{};
  // The answer for a failure that the server or Exchange::refuse() reports. If empty, the answer is a line of text.
  std::function<Answer(const Request* request, int status, std::string_view message)> error_answer{};
  std::function<void(const Finished& finished)> on_finished{};
};

class Server {
 public:
  // Listens, but answers only after start(). Throws Error naming the address if it cannot listen on it, or the TLS file
  // if it cannot use it. The clock outlives the server.
  Server(const ServerOptions& options, const Clock& clock, ServerHooks hooks);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // To be called before start().
  void route(std::string method, std::string pattern, Handler handler, RouteLimits limits = {});
  // Method and pattern of each route.
  std::vector<std::pair<std::string, std::string>> route_names() const;
  void start();
  int port() const;

  // Runs `work` on the server's thread, soon and in order. May be called from any thread. What is posted before start()
  // runs after it; what has not run when the server ends is destroyed without being run.
  void post(std::function<void()> work);
  // The same after a delay. May be called only on the server's thread.
  void call_after(milliseconds delay, std::function<void()> work);

  // Stops listening, closes idle connections, and ends the others after their current answers. Returns true when all
  // have ended, or false after `limit`; it can be called again. Not to be called on the server's thread.
  bool drain(milliseconds limit);
  // Ends the thread and all connections. Exchanges that others still hold are closed; their callbacks are called, on
  // the caller's thread. What is posted afterwards is destroyed with the server. The destructor does the same.
  void stop();

  struct Impl;  // internal to connection.cc and server.cc

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace optserve::http
