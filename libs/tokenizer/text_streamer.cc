#include "tokenizer/text_streamer.h"

#include <algorithm>
#include <utility>

#include "base/utf8.h"
#include "tokenizer/lossy_utf8.h"

namespace optserve::tokenizer {
namespace {

struct StopMatch {
  size_t begin = 0;
  size_t end = 0;
  size_t index = 0;
};

// The match that ends first; of several, the one that begins first, and of those the first in the list.
std::optional<StopMatch> first_stop(std::string_view text, std::span<const std::string> stop_strings) {
  std::optional<StopMatch> best;
  for (size_t i = 0; i < stop_strings.size(); ++i) {
    const size_t begin = text.find(stop_strings[i]);
    if (begin == std::string_view::npos) continue;
    const size_t end = begin + stop_strings[i].size();
    if (!best || std::pair(end, begin) < std::pair(best->end, best->begin)) best = StopMatch{begin, end, i};
  }
  return best;
}

// The length of the longest end of `text` that is the beginning of a stop string. It starts at a character boundary,
// because stop strings do.
size_t held_back(std::string_view text, std::span<const std::string> stop_strings) {
  size_t longest = 0;
  for (const std::string_view stop : stop_strings) {
    for (size_t length = std::min(text.size(), stop.size() - 1); length > longest; --length) {
      if (!text.ends_with(stop.substr(0, length))) continue;
      longest = length;
      break;
    }
  }
  return longest;
}

Refusal bad_stop(size_t index, const std::string& problem) {
  return refuse(ErrorCode::kBadRequest, "stop string " + std::to_string(index) + ": " + problem);
}

// A state holds whole characters, followed by at most the beginning of one.
Status check_pending(std::string_view pending) {
  if (pending.size() > kPendingTextBytesMax) {
    return refuse(ErrorCode::kBadRequest, "pending text: expected at most " + std::to_string(kPendingTextBytesMax) +
                                              " bytes, found " + std::to_string(pending.size()));
  }
  const std::string_view rest = pending.substr(valid_utf8_prefix(pending));
  if (!rest.empty() && !is_incomplete_utf8(rest)) {
    return refuse(ErrorCode::kBadRequest, "pending text: expected UTF-8, found an invalid sequence at byte " +
                                              std::to_string(pending.size() - rest.size()));
  }
  return ok_status();
}

}  // namespace

Status check_stop_strings(std::span<const std::string> stop_strings) {
  if (stop_strings.size() > limits::kStopStringsMax) {
    return refuse(ErrorCode::kBadRequest, "expected at most " + std::to_string(limits::kStopStringsMax) +
                                              " stop strings, found " + std::to_string(stop_strings.size()));
  }
  for (size_t i = 0; i < stop_strings.size(); ++i) {
    const std::string& stop = stop_strings[i];
    if (stop.empty() || stop.size() > limits::kStopStringBytesMax) {
      return bad_stop(i, "expected 1 to " + std::to_string(limits::kStopStringBytesMax) + " bytes, found " +
                             std::to_string(stop.size()));
    }
    if (!is_valid_utf8(stop)) return bad_stop(i, "expected UTF-8, found bytes that are not");
  }
  return ok_status();
}

Result<StreamedText> TextStreamer::push(std::string_view pending, std::span<const TokenId> ids,
                                        std::span<const std::string> stop_strings, bool flush) const {
  if (const Status checked = check_stop_strings(stop_strings); !checked.ok()) return checked.refusal();
  if (const Status checked = check_pending(pending); !checked.ok()) return checked.refusal();

  std::string bytes(pending);
  for (const TokenId id : ids) bytes += bpe_->token_bytes(id);
  StreamedText out;
  std::string text;
  size_t read = append_lossy(bytes, text);
  if (flush && read < bytes.size()) {
    text += kReplacement;
    read = bytes.size();
  }
  if (const auto stop = first_stop(text, stop_strings)) {
    out.stop_string = stop->index;
    text.resize(stop->begin);
    out.piece = std::move(text);
    return out;
  }
  const size_t ready = flush ? text.size() : text.size() - held_back(text, stop_strings);
  out.pending = text.substr(ready) + bytes.substr(read);
  text.resize(ready);
  out.piece = std::move(text);
  return out;
}

std::string TextStreamer::decode_text(std::span<const TokenId> ids) const { return lossy_utf8(bpe_->decode(ids)); }

}  // namespace optserve::tokenizer
