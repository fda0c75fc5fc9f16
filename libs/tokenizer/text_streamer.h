// Decodes ids to text, piece by piece. The caller keeps what is pending between the calls, and the streamer remembers
// nothing, so any tokenizer process may serve any piece of any job.
//
// However a job's ids are divided into calls (the last one with `flush`):
// - each piece is valid UTF-8, and all pieces together are the lossy decoding of all ids (lossy_utf8.h), up to the
//   first stop string if there is one;
// - no piece contains a stop string, or the beginning of the one that ended the text.
// The first stop string is the one that is complete first as the text grows byte by byte. Of several that are complete
// at the same byte it is the longest, and of equal ones the first in the list.
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

// What is decoded but not yet delivered; empty at the start of a job. Callers pass it on unchanged. It holds text that
// may be the beginning of a stop string, followed by the bytes of an incomplete character.
using PendingText = std::string;
// The longest PendingText that push() returns.
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

  // Continues the text after `pending` with `ids`; with `flush`, these are the last ones. The stop strings must be the
  // same in all calls of a job. Refuses more stop strings than limits::kStopStringsMax, stop strings that are empty,
  // longer than kStopStringBytesMax or not valid UTF-8, and a `pending` that no call can have returned.
  Result<StreamedText> push(std::string_view pending, std::span<const TokenId> ids,
                            std::span<const std::string> stop_strings, bool flush) const;

  // The text of all `ids` at once: bytes that are not UTF-8 become U+FFFD, special tokens become nothing.
  std::string decode_text(std::span<const TokenId> ids) const;

 private:
  const Bpe* bpe_;
};

// Checks whether push() accepts these stop strings, so that a request can be refused early.
Status check_stop_strings(std::span<const std::string> stop_strings);

}  // namespace optserve::tokenizer
