// What the ranks of a TCP group say to each other: records of fixed size, integers little-endian, texts padded with
// zeros. Decoding refuses whatever no rank would send.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "base/error.h"
#include "base/ids.h"

namespace optserve::comm::tcp {

inline constexpr size_t kTextBytes = 224;    // of a group's name or an answer's reason
inline constexpr size_t kReasonBytes = 512;  // of an abort
inline constexpr size_t kHelloBytes = 260;   // magic, channel, world, rank, nonce, group
inline constexpr size_t kAnswerBytes = 240;  // magic, kind, token, text
inline constexpr size_t kHeaderBytes = 32;   // magic, operation, root, token, total, size

// A rank has two connections to rank 0: the operations run over one, the other tells at any time that a rank is gone.
enum class Channel : uint8_t { kData = 1, kLifeline };

// The first record of a connection.
struct Hello {
  Channel channel = Channel::kData;
  int world = 0;
  int rank = 0;
  Id128 nonce;        // says which two connections belong together
  std::string group;  // what all ranks must agree on
};
using HelloBytes = std::array<uint8_t, kHelloBytes>;
HelloBytes encode(const Hello& hello);  // group: at most kTextBytes
Result<Hello> decode_hello(const HelloBytes& bytes);

// What rank 0 says to a Hello.
struct Answer {
  enum class Kind : uint8_t {
    kSeated = 1,  // known; the others are still missing
    kStart,       // everybody is there; `token` is the name of this start
    kRefused,     // this rank will never belong to this group: `text` says why
    kTryAgain     // not now: `text` says why
  };
  Kind kind = Kind::kSeated;
  uint64_t token = 0;
  std::string text;
};
using AnswerBytes = std::array<uint8_t, kAnswerBytes>;
AnswerBytes encode(const Answer& answer);  // a longer text is cut
Result<Answer> decode_answer(const AnswerBytes& bytes);

enum class Operation : uint8_t { kReduce = 1, kGather, kBroadcast, kBytes, kBarrier, kAbort, kLeave };
const char* name_of(Operation operation);

// Stands before the bytes of an operation, so that different calls are noticed.
struct FrameHeader {
  Operation operation = Operation::kBarrier;
  int root = 0;
  uint64_t token = 0;  // of the start
  uint64_t total = 0;  // bytes of the operation on each rank
  uint64_t size = 0;   // bytes that follow
  bool operator==(const FrameHeader&) const = default;
};
using HeaderBytes = std::array<uint8_t, kHeaderBytes>;
HeaderBytes encode(const FrameHeader& header);
// Bounds the size of what has no size of its own at the receiver: bytes by limits::kGroupMessageBytesMax, the reason of
// an abort by kReasonBytes.
Result<FrameHeader> decode_header(const HeaderBytes& bytes);

}  // namespace optserve::comm::tcp
