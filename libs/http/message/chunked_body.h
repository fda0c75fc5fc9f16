// Decodes a chunked body that arrives in pieces of any size.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace optserve::http {

class ChunkedBody {
 public:
  enum class State { kMore, kDone, kMalformed, kTooLarge };

  // Consumes `bytes` from the front until the body ends or is refused, and appends the content to `body`, which never
  // holds more than `body_bytes_max` bytes. Trailer fields are skipped.
  State feed(std::string_view& bytes, std::string& body, size_t body_bytes_max);

 private:
  enum class Part {
    kSize,
    kExtension,
    kSizeEnd,
    kData,
    kDataEnd,
    kDataEndLf,
    kTrailerStart,
    kTrailer,
    kTrailerEnd,
    kEnd
  };

  // Takes one byte of the framing; false if it is malformed.
  bool take(char c);

  Part part_ = Part::kSize;
  uint64_t chunk_bytes_ = 0;  // left of the current chunk
  int size_digits_ = 0;
  size_t line_bytes_ = 0;  // of extensions of this chunk, or of all trailer fields
};

}  // namespace optserve::http
