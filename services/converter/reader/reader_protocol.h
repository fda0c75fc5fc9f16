// What the converter and its reader process say to each other: fixed structs over a socket pair, and bytes in a shared
// window. Each question has one answer. The converter checks every field of an answer, since foreign bytes may have
// taken over the reader; the reader trusts the converter.
#pragma once

#include <cstdint>

namespace optserve::converter {

enum class Question : uint32_t {
  kOpen = 1,        // the window holds a ModelSummary
  kCheckBytes,      // of `tensor`
  kReplicasAgree,   // of `tensor`; number is 0 or 1
  kReadRows,        // rows [begin, begin + count) of `tensor` are in a half of the window
  kCheckUnchanged,  // of all files
  kFindTokenizer,   // number: 1 if there is one; the window then holds a TokenizerFiles without its texts
  kTokenizerBytes,  // bytes [begin, begin + count) of the vocabulary, the merges and the added tokens are in the window
};

struct Request {
  Question question = Question::kOpen;
  uint32_t tensor = 0;  // place in opt_tensors(config)
  int64_t begin = 0;
  int64_t count = 0;
  uint64_t half = 0;  // of the window: 0 or 1, so that one half is used while the other is filled
};

enum class Answer : uint32_t {
  kDone = 1,
  kRefusal,  // `code` and a text in the window
  kError,    // the environment failed: a text in the window
};

struct Reply {
  Answer answer = Answer::kDone;
  uint32_t code = 0;
  uint64_t number = 0;
  uint64_t bytes = 0;  // in the window
};

static_assert(sizeof(Request) == 32 && sizeof(Reply) == 24);  // without padding, which could carry stray bytes

inline constexpr uint64_t kHalfBytes = 8 << 20;  // one row of the widest tensor in double precision
inline constexpr uint64_t kWindowBytes = 2 * kHalfBytes;
inline constexpr uint64_t kReplyTextMax = 16 << 10;  // of a refusal or an error
inline constexpr uint64_t kTokenizerFileMax = 64 << 20;

// Descriptors of the reader.
inline constexpr int kChannelFd = 3;
inline constexpr int kWindowFd = 4;

}  // namespace optserve::converter
