// The input is the number of stop strings, each preceded by its length, and then bytes that are streamed as tokens; a
// byte 0xfd ends a call. The pieces must be valid UTF-8 and together be what one call gives.
#include <cstdint>

#include "base/utf8.h"
#include "tokenizer/small_vocabulary.h"
#include "tokenizer/text_streamer.h"

namespace optserve::tokenizer {
namespace {

std::string_view take(std::string_view& rest, size_t count) {
  const std::string_view taken = rest.substr(0, count);
  rest.remove_prefix(taken.size());
  return taken;
}

size_t take_byte(std::string_view& rest) {
  const std::string_view taken = take(rest, 1);
  return taken.empty() ? 0 : static_cast<uint8_t>(taken[0]);
}

void stream_both_ways(const Bpe& bpe, std::string_view calls, const std::vector<std::string>& stops) {
  const TextStreamer streamer(bpe);
  StreamedText last;
  std::string joined;
  std::vector<TokenId> all;
  for (bool flush = false; !flush && !last.stop_string;) {
    const size_t end = calls.find('\xfd');
    std::vector<TokenId> ids;
    for (const char c : calls.substr(0, end)) ids.push_back(4 + static_cast<uint8_t>(c));
    flush = end == std::string_view::npos;
    calls.remove_prefix(flush ? calls.size() : end + 1);
    last = streamer.push(last.pending, ids, stops, flush).value();
    check(is_valid_utf8(last.piece), "a piece is valid UTF-8");
    joined += last.piece;
    all.insert(all.end(), ids.begin(), ids.end());
  }
  const StreamedText whole = streamer.push("", all, stops, true).value();
  check(whole.stop_string == last.stop_string, "the same stop string ends the text");
  check(whole.piece == joined, "the pieces join to the whole");
  check(last.stop_string || joined == streamer.decode_text(all), "the whole is the lossy decode");
}

}  // namespace
}  // namespace optserve::tokenizer

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace optserve::tokenizer;
  static const Bpe bpe = story_vocabulary().make();
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> stops(take_byte(rest) % 6);
  for (std::string& stop : stops) stop = take(rest, take_byte(rest) % 70);
  if (check_stop_strings(stops).ok()) {
    stream_both_ways(bpe, rest, stops);
  } else {
    optserve::check(!TextStreamer(bpe).push("", {}, stops, true).ok(), "bad stop strings are refused");
  }
  (void)TextStreamer(bpe).push(rest, {}, {}, false);  // any bytes as a state
  return 0;
}
