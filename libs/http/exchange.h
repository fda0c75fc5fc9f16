// One request and its answer. Belongs to the server's thread: handlers run there, and other threads reach it through
// Server::post(). A handler that answers later keeps the pointer. After the answer is complete, or the connection is
// lost, the object does nothing. A request whose exchange is destroyed without an answer is answered with 500; a stream
// that was begun is cut.
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
  // Until the answer is complete or the connection is lost.
  bool is_open() const { return connection_ != nullptr; }

  // The whole answer at once.
  void answer(const Answer& answer);
  // A refusal in the form that the owner of the server gives to errors.
  void refuse(int status, std::string_view message);

  // An answer in pieces: begin_stream(), write() as often as wanted, end(). A peer that speaks HTTP/1.0 gets it without
  // chunks, up to the end of the connection.
  void begin_stream(int status, const Headers& headers);
  bool is_streaming() const { return is_streaming_; }
  void write(std::string_view piece);
  void end();
  // Cuts the connection, so that the peer sees that its answer is incomplete. What was written before is still handed
  // to the operating system if that takes it at once. No callback is called.
  void abort();
  // What was written and the peer has not taken, in bytes; the buffer of the operating system is not counted.
  size_t buffered_bytes() const;

  // Called once when the connection is lost before the answer is complete: the peer has gone, or reads too slowly, or
  // the server ends. The exchange is closed then.
  void on_closed(std::function<void()> callback) { on_closed_ = std::move(callback); }
  // Called inside write() when ServerLimits::stream_bytes_max wait for the peer; again only after all was taken.
  // Without this callback the connection is lost at that point, and with it at four times as much.
  void on_slow(std::function<void()> callback) { on_slow_ = std::move(callback); }
  // Called when the peer has taken everything that was written.
  void on_drained(std::function<void()> callback) { on_drained_ = std::move(callback); }
  // Called when the peer has ended its sending side while a stream runs: it is gone, or will only read. Whatever is
  // written makes the difference visible: a peer that is gone ends the connection, and on_closed() follows. (While an
  // answer has not begun, the server finds out by itself.)
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
