// What a handler answers, and its text on the wire.
#pragma once

#include <string>
#include <string_view>

#include "http/message/headers.h"

namespace optserve::http {

struct Answer {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";  // empty: there is no body
  std::string body;
  Headers headers = {};  // besides Content-Type, Content-Length, Date and Connection, which the server sets
};

// "Not Found", for example; "Unknown" for a status that HTTP does not have.
std::string_view reason_of(int status);

enum class Framing { kLength, kChunks, kUntilClose };

struct HeadOfAnswer {
  int status = 200;
  const Headers& headers;
  Framing framing = Framing::kLength;
  size_t content_length = 0;  // for kLength
  bool keep_alive = true;
  int minor_version = 1;  // of the request
  std::string_view date;  // as http_date() writes it
};
// Status line and header fields with the empty line that ends them. Control characters in a value become spaces, so
// that text from a request cannot add fields.
std::string render(const HeadOfAnswer& head);

// "Sun, 06 Nov 1994 08:49:37 GMT"
std::string http_date(int64_t wall_ms);

// One event of a stream of server-sent events, in the only form that all clients parse: a single line "data: ..." and
// an empty line. `data` has no line breaks and is not empty.
std::string sse_frame(std::string_view data);
// The headers of a stream of server-sent events: its type, and that proxies must neither buffer nor store it.
Headers sse_headers();

}  // namespace optserve::http
