// The records that the ranks of a TCP group exchange. They have fixed sizes; integers are little-endian, and texts are
// padded with zeros. Decoding refuses everything that no rank would send.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "base/error.h"
#include "base/ids.h"
#include "keys/sealed_stream.h"

namespace optserve::comm::tcp {

inline constexpr size_t kTextBytes = 224;    // the longest name of a group, and the longest text of an answer
inline constexpr size_t kReasonBytes = 512;  // the longest reason of an abort
inline constexpr size_t kHelloBytes = 260;   // magic, channel, world, rank, nonce, group
inline constexpr size_t kAnswerBytes = 240;  // magic, kind, token, text
inline constexpr size_t kHeaderBytes = 32;   // magic, operation, root, token, total, size

// A rank has two connections to rank 0: one carries the operations, the other can report at any time that a rank is
// gone.
enum class Channel : uint8_t { kData = 1, kLifeline };

// The first two records of a connection, if the group has a key: offers of rank 0's peer and of rank 0. All later
// records are sealed. They have the sizes of a Hello and an Answer, so that each side can tell the other that it has no
// key.
struct Call {
  keys::Offer offer{};
};
struct CallAnswer {
  keys::Offer offer{};
};

// The first record of a connection that is not one of these.
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
HelloBytes encode(const Call& call);
Result<Call> decode_call(const HelloBytes& bytes);
bool is_call(const HelloBytes& bytes);

// What rank 0 answers to a Hello.
struct Answer {
  enum class Kind : uint8_t {
    kSeated = 1,  // this rank belongs to the group; others are still missing
    kStart,       // all ranks are there; `token` names this start of the group
    kRefused,     // this rank will never belong to this group; `text` says why
    kTryAgain     // this rank cannot enter at the moment; `text` says why
  };
  Kind kind = Kind::kSeated;
  uint64_t token = 0;
  std::string text;
};
using AnswerBytes = std::array<uint8_t, kAnswerBytes>;
AnswerBytes encode(const Answer& answer);  // a longer text is cut
Result<Answer> decode_answer(const AnswerBytes& bytes);
AnswerBytes encode(const CallAnswer& answer);
Result<CallAnswer> decode_call_answer(const AnswerBytes& bytes);

enum class Operation : uint8_t { kReduce = 1, kGather, kBroadcast, kBytes, kBarrier, kAbort, kLeave };
const char* name_of(Operation operation);

// Stands before the bytes of an operation, so that ranks notice when their calls differ.
struct FrameHeader {
  Operation operation = Operation::kBarrier;
  int root = 0;
  uint64_t token = 0;  // see Answer
  uint64_t total = 0;  // bytes of the whole operation on each rank
  uint64_t size = 0;   // bytes that follow this header
  bool operator==(const FrameHeader&) const = default;
};
using HeaderBytes = std::array<uint8_t, kHeaderBytes>;
HeaderBytes encode(const FrameHeader& header);
// Also refuses sizes above the limit if the receiver does not know the size beforehand: kGroupMessageBytesMax of
// limits.h for bytes, and kReasonBytes for the reason of an abort.
Result<FrameHeader> decode_header(const HeaderBytes& bytes);

}  // namespace optserve::comm::tcp
