// A connection between two ranks. With a key of the group everything on it is sealed, in pieces whose sizes both sides
// know beforehand, so nothing that a stranger sends is used as a size.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "comm/tcp/socket.h"
#include "keys/sealed_stream.h"

namespace optserve::comm::tcp {

class Link {
 public:
  Link() = default;  // not open
  explicit Link(Socket socket) : socket_(std::move(socket)) {}

  const Socket& socket() const { return socket_; }
  bool is_open() const { return socket_.is_open(); }
  bool is_sealed() const { return stream_.has_value(); }
  // From here on everything is sealed, in both directions.
  void seal(const keys::SealedStream& stream) { stream_ = stream; }

  // One thread may send while another one receives. Both sides divide what they exchange into the same calls. `more` is
  // as in send_all().
  Io send(std::span<const uint8_t> bytes, const Deadline& until, bool more = false);
  Io receive(std::span<uint8_t> bytes, const Deadline& until);

  // For callers that move the bytes themselves: how many stand on the wire for `size` bytes, at most kPieceBytes; the
  // same bytes as send() sends, at the end of `wire`; and what receive() makes of them, false if they are forged.
  size_t wire_size(size_t size) const { return size + (stream_ && size > 0 ? keys::kSealBytes : 0); }
  void append(std::span<const uint8_t> bytes, std::vector<uint8_t>& wire);
  [[nodiscard]] bool open(std::span<const uint8_t> wire, std::span<uint8_t> bytes);

  static constexpr size_t kPieceBytes = 1 << 16;

 private:
  Socket socket_;
  std::optional<keys::SealedStream> stream_;
  std::vector<uint8_t> sending_, receiving_;  // one sealed piece
};

}  // namespace optserve::comm::tcp
