// Ids to text, piece by piece, for a caller that keeps what is pending: nothing is remembered between calls, so any
// tokenizer process may serve any piece of any job.
//
// For every way of cutting a job's ids into calls, the last with `flush`:
//   - each piece is valid UTF-8, and the pieces joined are the lossy decode of all ids (lossy_utf8.h), up to the first
//   stop
//     string where there is one;
//   - no piece holds a stop string or the beginning of the one that ended the text.
// The first stop string is the one that is complete first as the text grows byte by byte; of those complete at the same
// byte the longest, and of equal ones the first in the list.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/ids.h"
#include "base/limits.h"
#include "tokenizer/bpe.h"

namespace optserve::tokenizer {

// What was decoded but not yet given out, empty at the start of a job. Opaque to others: text that may begin a stop
// string, then the bytes of a character that is not complete. It travels with the job's requests as it stands.
using PendingText = std::string;
// Bound of every state that push() returns.
inline constexpr size_t kPendingTextBytesMax = limits::kStopStringBytesMax + 3;

struct StreamedText {
  std::string piece;                  // ready for the client; may be empty
  std::optional<size_t> stop_string;  // index of the stop string found: the text ends with `piece`, the rest is dropped
  PendingText pending;                // for the next call; empty after a stop string or a flush
};

class TextStreamer {
 public:
  // `bpe` outlives the streamer, which any number of threads may use at once.
  explicit TextStreamer(const Bpe& bpe) : bpe_(&bpe) {}

  // Continues the text behind `pending` with `ids`; `flush` says that these are the last. Stop strings stay the same
  // through a job. Refused: stop strings over limits::kStopStringsMax or kStopStringBytesMax, empty or not valid UTF-8,
  // and a `pending` that no call can have returned.
  Result<StreamedText> push(std::string_view pending, std::span<const TokenId> ids,
                            std::span<const std::string> stop_strings, bool flush) const;

  // The text of all `ids` at once: bytes that are not UTF-8 become U+FFFD, special tokens nothing.
  std::string decode_text(std::span<const TokenId> ids) const;

 private:
  const Bpe* bpe_;
};

// Whether push() takes these stop strings, for refusing a request early.
Status check_stop_strings(std::span<const std::string> stop_strings);

}  // namespace optserve::tokenizer
