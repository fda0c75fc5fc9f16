#include "http/message/chunked_body.h"

#include <algorithm>

#include "base/hex.h"

namespace optserve::http {
namespace {

constexpr size_t kExtensionBytesMax = 256;
constexpr size_t kTrailerBytesMax = 8 << 10;
constexpr int kSizeDigitsMax = 15;  // does not overflow 64 bits

}  // namespace

bool ChunkedBody::take(char c) {
  switch (part_) {
    case Part::kSize:
      if (const int digit = hex_digit(c); digit >= 0) {
        chunk_bytes_ = chunk_bytes_ * 16 + static_cast<uint64_t>(digit);
        return ++size_digits_ <= kSizeDigitsMax;
      }
      part_ = c == '\r' ? Part::kSizeEnd : Part::kExtension;
      return size_digits_ > 0 && (c == '\r' || c == ';' || c == ' ' || c == '\t');
    case Part::kExtension:
      if (c == '\r') part_ = Part::kSizeEnd;
      return c != '\n' && ++line_bytes_ <= kExtensionBytesMax;
    case Part::kSizeEnd:
      part_ = chunk_bytes_ > 0 ? Part::kData : Part::kTrailerStart;
      size_digits_ = 0;
      line_bytes_ = 0;
      return c == '\n';
    case Part::kDataEnd:
      part_ = Part::kDataEndLf;
      return c == '\r';
    case Part::kDataEndLf:
      part_ = Part::kSize;
      return c == '\n';
    case Part::kTrailerStart:
      part_ = c == '\r' ? Part::kEnd : Part::kTrailer;
      return c != '\n' && ++line_bytes_ <= kTrailerBytesMax;
    case Part::kTrailer:
      if (c == '\r') part_ = Part::kTrailerEnd;
      return c != '\n' && ++line_bytes_ <= kTrailerBytesMax;
    case Part::kTrailerEnd:
      part_ = Part::kTrailerStart;
      return c == '\n';
    case Part::kData:
    case Part::kEnd:
      break;
  }
  return c == '\n';  // the last byte
}

ChunkedBody::State ChunkedBody::feed(std::string_view& bytes, std::string& body, size_t body_bytes_max) {
  while (!bytes.empty()) {
    if (part_ == Part::kData) {
      const size_t count = static_cast<size_t>(std::min<uint64_t>(chunk_bytes_, bytes.size()));
      body.append(bytes.substr(0, count));
      bytes.remove_prefix(count);
      chunk_bytes_ -= count;
      if (chunk_bytes_ == 0) part_ = Part::kDataEnd;
      continue;
    }
    const bool is_last = part_ == Part::kEnd;
    if (!take(bytes.front())) return State::kMalformed;
    bytes.remove_prefix(1);
    if (is_last) return State::kDone;
    if (part_ == Part::kData && chunk_bytes_ > body_bytes_max - body.size()) return State::kTooLarge;
  }
  return State::kMore;
}

}  // namespace optserve::http
