#include "comm/tcp/link.h"

#include <algorithm>

#include "base/error.h"

namespace optserve::comm::tcp {

Io Link::send(std::span<const uint8_t> bytes, const Deadline& until, bool more) {
  if (!stream_) return send_all(socket_, bytes, until, more);
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), kPieceBytes));
    bytes = bytes.subspan(piece.size());
    sending_.resize(wire_size(piece.size()));
    stream_->sealer.seal(piece, sending_);
    if (const Io io = send_all(socket_, sending_, until, more || !bytes.empty()); io != Io::kDone) return io;
  }
  return Io::kDone;
}

Io Link::receive(std::span<uint8_t> bytes, const Deadline& until) {
  if (!stream_) return receive_all(socket_, bytes, until);
  while (!bytes.empty()) {
    const auto piece = bytes.first(std::min(bytes.size(), kPieceBytes));
    bytes = bytes.subspan(piece.size());
    receiving_.resize(wire_size(piece.size()));
    if (const Io io = receive_all(socket_, receiving_, until); io != Io::kDone) return io;
    if (!stream_->opener.open(receiving_, piece)) return Io::kForged;
  }
  return Io::kDone;
}

void Link::append(std::span<const uint8_t> bytes, std::vector<uint8_t>& wire) {
  check(bytes.size() <= kPieceBytes, "bytes of a piece");
  const size_t at = wire.size();
  wire.resize(at + wire_size(bytes.size()));
  const auto target = std::span(wire).subspan(at);
  if (stream_ && !bytes.empty()) {
    stream_->sealer.seal(bytes, target);
  } else {
    std::ranges::copy(bytes, target.begin());
  }
}

bool Link::open(std::span<const uint8_t> wire, std::span<uint8_t> bytes) {
  check(bytes.size() <= kPieceBytes && wire.size() == wire_size(bytes.size()), "bytes of a piece");
  if (stream_ && !bytes.empty()) return stream_->opener.open(wire, bytes);
  std::ranges::copy(wire, bytes.begin());
  return true;
}

}  // namespace optserve::comm::tcp
