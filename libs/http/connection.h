// One connection: reads one request after another and has each answered. Internal to the component.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "http/event_handles.h"
#include "http/exchange.h"
#include "http/message/request_reader.h"
#include "http/server.h"

namespace optserve::http {

class Connection {
 public:
  Connection(Server::Impl& server, std::string peer);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Takes over the descriptor; false if there is no memory for its events.
  bool open(evutil_socket_t fd);
  // The connection is lost, or has to end at once. Tells the exchange.
  void lose();
  // Ends now if no request is in progress, otherwise after the current answer.
  void end_soon();

  // For Exchange.
  void answer(const Answer& answer);
  void refuse(int status, std::string_view message);
  void begin_stream(int status, const Headers& headers);
  void write(std::string_view piece);
  void end_stream();
  void abort();
  void abandon();  // the exchange is destroyed while it is open
  size_t buffered_bytes() const;

 private:
  enum class Phase {
    kIdle,       // no byte of a request has come
    kReading,    // a part of one
    kAnswering,  // a handler has it
    kFlushing,   // the answer is complete, and a part of it waits for the peer
    kLingering,  // nothing more will be sent; what still comes is thrown away, so that the peer reads the answer
    kEnded
  };

  static void on_read(bufferevent*, void* self);
  static void on_written(bufferevent*, void* self);
  static void on_event(bufferevent*, short what, void* self);
  static void on_timer(evutil_socket_t, short, void* self);

  void read();
  void take_input();
  // A function that a sink calls, from any thread, when it has room again.
  std::function<void()> resume_reading();
  void begin_request();
  void route_request();
  void limit_bodies();
  void wait_for_sink();
  void handle_request();
  void fail_request(int status, std::string_view message);
  void flushed();
  void peer_closed();
  void probe();
  void linger();
  void show_incomplete();
  void set_timer(milliseconds time);
  void send(std::string_view bytes);
  void send_body(std::string_view bytes);
  void send_head(int status, const Headers& headers, Framing framing, size_t content_length);
  void finish(bool is_complete);
  void report(const Exchange& exchange, bool is_complete);
  void release_body();

  Server::Impl& server_;
  const std::string peer_;
  EventPtr<bufferevent> buffer_;
  EventPtr<event> timer_;
  Phase phase_ = Phase::kIdle;
  bool is_first_ = true;         // request of the connection
  bool is_taking_ = false;       // take_input() runs
  bool waits_for_sink_ = false;  // the sink of the current request is full, so nothing is read
  std::shared_ptr<Connection*> self_ = std::make_shared<Connection*>(this);  // null once it is destroyed
  bool peer_closed_ = false;                                                 // it has closed its sending side
  bool keeps_alive_ = true;                                                  // after the current answer
  size_t lingered_bytes_ = 0;

  // The current request.
  std::unique_ptr<RequestReader> reader_;
  const Route* route_ = nullptr;
  std::optional<Answer> early_answer_;  // decided before the body was read
  size_t counted_body_bytes_ = 0;       // in Server::Impl::bodies_bytes
  Instant request_begun_{}, request_read_{}, first_byte_{};
  Exchange* exchange_ = nullptr;
  int status_ = 0;  // that was sent; 0 if none was
  Framing framing_ = Framing::kLength;
  bool has_body_ = true;  // the answer may have a body; false for HEAD
  uint64_t body_bytes_ = 0;
};

}  // namespace optserve::http
