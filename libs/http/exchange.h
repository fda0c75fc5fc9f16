// One request and its answer. Belongs to the server's thread: handlers run there, and other threads reach it through
// Server::post(). A handler that answers later keeps the pointer. Once the answer is complete or the connection is
// lost, the object does nothing. A request whose exchange is destroyed without an answer is answered with 500; a stream
// that has begun is cut off.
#pragma once

#include <functional>
#include <string_view>

#include "http/message/answer.h"
#include "http/message/request.h"

namespace optserve::http {

class Connection;

class Exchange {
 public:
  Exchange(Connection& connection, Request request) : connection_(&connection), request_(std::move(request)) {}
  ~Exchange();
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  const Request& request() const { return request_; }
  Request& request() { return request_; }
  // True until the answer is complete or the connection is lost.
  bool is_open() const { return connection_ != nullptr; }

  // The whole answer at once.
  void answer(const Answer& answer);
  // A refusal in the form that the owner of the server uses for errors.
  void refuse(int status, std::string_view message);

  // An answer in pieces: begin_stream(), write() as often as wanted, end(). An HTTP/1.0 peer gets it without chunks,
  // ended by the end of the connection.
  void begin_stream(int status, const Headers& headers);
  bool is_streaming() const { return is_streaming_; }
  void write(std::string_view piece);
  void end();
  // Cuts the connection, so that the peer sees that its answer is incomplete. What was written before is still sent if
  // the operating system takes it at once. No callback is called.
  void abort();
  // The bytes that were written but not yet sent, without those in the buffer of the operating system.
  size_t buffered_bytes() const;

  // Called once when the connection is lost before the answer is complete: the peer has gone, or reads too slowly, or
  // the server ends. The exchange is then closed.
  void on_closed(std::function<void()> callback) { on_closed_ = std::move(callback); }
  // Called inside write() when ServerLimits::stream_bytes_max bytes wait for the peer, and again only after all of them
  // were taken. Without this callback the connection is dropped at that point, and with it at four times as many bytes.
  void on_slow(std::function<void()> callback) { on_slow_ = std::move(callback); }
  // Called when the peer has taken everything that was written.
  void on_drained(std::function<void()> callback) { on_drained_ = std::move(callback); }
  // Called when the peer has ended its sending side while a stream runs: it is gone, or will only read. Writing shows
  // which: if the peer is gone, the connection ends and on_closed() follows. (Before an answer has begun, the server
  // finds this out by itself.)
  void on_half_closed(std::function<void()> callback) { on_half_closed_ = std::move(callback); }

 private:
  friend class Connection;
  void detach();  // forgets the connection and the callbacks

  Connection* connection_;
  Request request_;
  bool is_streaming_ = false;
  bool is_slow_ = false;
  std::function<void()> on_closed_, on_slow_, on_drained_, on_half_closed_;
};

}  // namespace optserve::http
