// Reads one request from bytes that arrive in pieces of any size. It is pure: it uses no sockets and no clock. It is
// strict where two readers could disagree on where a request ends: lines end with CR LF, a length is given once, and a
// request has either a length or chunks.
#pragma once

#include <string>
#include <string_view>

#include "http/message/chunked_body.h"
#include "http/message/request.h"

namespace optserve::http {

struct HeadLimits {
  size_t target_bytes_max = 8 << 10;
  size_t head_bytes_max = 32 << 10;  // request line and header fields
  size_t fields_max = 100;
};

class RequestReader {
 public:
  enum class State {
    kHead,      // of the request; more bytes are needed
    kHeadDone,  // request() has everything but the body; begin_body() is expected
    kBody,      // more bytes are needed
    kDone,      // request() is complete
    kFailed     // status() and message() say why; nothing that follows on the connection can be read
  };

  explicit RequestReader(const HeadLimits& limits) : limits_(limits) {}

  // Consumes bytes, and returns how many. Stops after the head and after the request.
  size_t feed(std::string_view bytes);
  // Continues after kHeadDone. The body goes to Request::sink if that is set.
  void begin_body(size_t body_bytes_max);

  State state() const { return state_; }
  bool has_begun() const { return state_ != State::kHead || !head_.empty(); }
  Request& request() { return request_; }
  // After kHeadDone, the value of Content-Length; zero if the body is chunked or there is none.
  uint64_t content_length() const { return content_length_; }
  bool has_body() const { return is_chunked_ || content_length_ > 0; }
  bool wants_continue() const;  // the peer waits for "100 Continue" before it sends the body
  bool keeps_alive() const;     // the peer would send another request on this connection

  int status() const { return status_; }  // 400, 413, 414, 417, 431, 501 or 505
  const std::string& message() const { return message_; }

 private:
  void fail(int status, std::string message);
  void check_head();
  void feed_body(std::string_view& bytes);
  void empty_into_sink();
  void parse_head();
  bool parse_request_line(std::string_view line);
  bool parse_field(std::string_view line);
  bool parse_framing();
  bool parse_content_length();

  HeadLimits limits_;
  State state_ = State::kHead;
  std::string head_;         // with the empty line that ends it
  bool line_ended_ = false;  // of the request line
  Request request_;
  bool is_chunked_ = false;
  uint64_t content_length_ = 0;
  size_t body_bytes_max_ = 0;
  uint64_t sunk_bytes_ = 0;  // bytes of the body that the sink has taken
  ChunkedBody chunks_;
  int status_ = 0;
  std::string message_;
};

}  // namespace optserve::http
