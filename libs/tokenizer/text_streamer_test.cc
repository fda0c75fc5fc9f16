#include "tokenizer/text_streamer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "base/utf8.h"
#include "tokenizer/encoder.h"
#include "tokenizer/lossy_utf8.h"
#include "tokenizer/small_vocabulary.h"

namespace optserve::tokenizer {
namespace text_streamer_test {

using Ids = std::vector<TokenId>;
using Stops = std::vector<std::string>;

Ids bytes_as_ids(std::string_view bytes) {
  Ids ids;
  for (const char c : bytes) ids.push_back(4 + static_cast<uint8_t>(c));
  return ids;
}

// What a job's client sees.
struct Outcome {
  std::string text;
  std::optional<size_t> stop;
  bool operator==(const Outcome&) const = default;
};

void PrintTo(const Outcome& outcome, std::ostream* out) {
  *out << testing::PrintToString(outcome.text) << " stop " << testing::PrintToString(outcome.stop);
}

// Decodes everything, then looks at each growing beginning of the text for a stop string at its end.
Outcome naive(const Bpe& bpe, const Ids& ids, const Stops& stops) {
  const std::string text = lossy_utf8(bpe.decode(ids));
  for (size_t end = 1; end <= text.size(); ++end) {
    std::optional<size_t> found;
    for (size_t i = 0; i < stops.size(); ++i) {
      if (!std::string_view(text).substr(0, end).ends_with(stops[i])) continue;
      if (!found || stops[i].size() > stops[*found].size()) found = i;
    }
    if (found) return {text.substr(0, end - stops[*found].size()), found};
  }
  return {text, std::nullopt};
}

// Pushes `ids` in calls of the given sizes, and checks what must be true of every piece.
Outcome stream(const Bpe& bpe, const Ids& ids, const Stops& stops, const std::vector<size_t>& sizes) {
  const TextStreamer streamer(bpe);
  Outcome outcome;
  PendingText pending;
  size_t at = 0;
  for (size_t call = 0; call < sizes.size(); ++call) {
    const bool flush = call + 1 == sizes.size();
    const auto step = streamer.push(pending, std::span(ids).subspan(at, sizes[call]), stops, flush);
    EXPECT_TRUE(step.ok()) << step.refusal().message;
    if (!step.ok()) return outcome;
    at += sizes[call];
    EXPECT_TRUE(is_valid_utf8(step.value().piece));
    EXPECT_LE(step.value().pending.size(), kPendingTextBytesMax);
    outcome.text += step.value().piece;
    outcome.stop = step.value().stop_string;
    pending = step.value().pending;
    if (flush || outcome.stop) {
      EXPECT_EQ(pending, "");
    }
    if (outcome.stop) break;
  }
  return outcome;
}

std::vector<size_t> random_sizes(std::mt19937& random, size_t total) {
  std::vector<size_t> sizes;
  while (total > 0) {
    sizes.push_back(std::min<size_t>(total, random() % 4));
    total -= sizes.back();
  }
  if (random() % 2 == 0) sizes.push_back(0);  // the last ids came without saying so
  if (sizes.empty()) sizes.push_back(0);
  return sizes;
}

TEST(LossyUtf8, ReplacesEachMaximalPart) {
  // The examples of Unicode 15, tables 3-8 to 3-11.
  EXPECT_EQ(lossy_utf8("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"),
            "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd"
            "A");
  EXPECT_EQ(lossy_utf8("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"),
            "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd"
            "A");
  EXPECT_EQ(lossy_utf8("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"), "\ufffd\ufffd\ufffd\ufffd\ufffdA\ufffd\ufffdB");
  EXPECT_EQ(lossy_utf8("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), "\ufffd\ufffd\ufffd\ufffdA");
  EXPECT_EQ(lossy_utf8("a\xf0\x9f\x98"), "a\ufffd");
  EXPECT_EQ(lossy_utf8(""), "");
  std::string text;
  EXPECT_EQ(append_lossy("ab\xf0\x9f\x98", text), 2u);
  EXPECT_EQ(text, "ab");
}

TEST(TextStreamer, HoldsBackHalfCharacters) {
  const Bpe bpe = story_vocabulary().make();
  const TextStreamer streamer(bpe);
  const Ids ids = bytes_as_ids("\xf0\x9f\x98\x80!");
  const StreamedText first = streamer.push("", std::span(ids).first(2), {}, false).value();
  EXPECT_EQ(first.piece, "");
  EXPECT_EQ(first.pending, "\xf0\x9f");
  const StreamedText second = streamer.push(first.pending, std::span(ids).subspan(2), {}, false).value();
  EXPECT_EQ(second.piece, "\U0001f600!");
  EXPECT_EQ(second.pending, "");
  EXPECT_EQ(streamer.push(first.pending, {}, {}, true).value().piece, "\ufffd");
  EXPECT_EQ(streamer.push(first.pending, bytes_as_ids("A"), {}, false).value().piece, "\ufffdA");
}

TEST(TextStreamer, HoldsBackWhatMayBeginAStopString) {
  const Bpe bpe = story_vocabulary().make();
  const TextStreamer streamer(bpe);
  const Stops stops = {"\n\nQ:", "END"};
  const StreamedText first = streamer.push("", bytes_as_ids("ok\n\n"), stops, false).value();
  EXPECT_EQ(first.piece, "ok");
  EXPECT_EQ(first.pending, "\n\n");
  const StreamedText released = streamer.push(first.pending, bytes_as_ids("\n"), stops, false).value();
  EXPECT_EQ(released.piece, "\n");
  EXPECT_EQ(released.pending, "\n\n");
  const StreamedText stopped = streamer.push(released.pending, bytes_as_ids("Q: what"), stops, false).value();
  EXPECT_EQ(stopped.piece, "");
  EXPECT_EQ(stopped.stop_string, 0u);
  EXPECT_EQ(stopped.pending, "");
  EXPECT_EQ(streamer.push(first.pending, {}, stops, true).value().piece, "\n\n");
}

TEST(TextStreamer, FindsTheStopStringThatIsCompleteFirst) {
  const Bpe bpe = story_vocabulary().make();
  EXPECT_EQ(stream(bpe, bytes_as_ids("xabcdx"), {"abcd", "bc"}, {6}), (Outcome{"xa", 1}));
  EXPECT_EQ(stream(bpe, bytes_as_ids("xabcdx"), {"d", "abcd"}, {6}), (Outcome{"x", 1}));
  EXPECT_EQ(stream(bpe, bytes_as_ids("xabcdx"), {"cd", "cd"}, {3, 3}), (Outcome{"xab", 0}));
  EXPECT_EQ(stream(bpe, bytes_as_ids("aab"), {"ab"}, {1, 1, 1}), (Outcome{"a", 0}));
  EXPECT_EQ(stream(bpe, bytes_as_ids("ab"), {"abc"}, {1, 1}), (Outcome{"ab", std::nullopt}));
  EXPECT_EQ(stream(bpe, bytes_as_ids("a\xf0\x9f"), {"\ufffd"}, {3, 0}), (Outcome{"a", 0}));
}

TEST(TextStreamer, SpecialAndUnusedIdsAddNothing) {
  const Bpe bpe = story_vocabulary().make();
  const Ids ids = {4 + 0xc3, kEndId, kPadId, 50271, 4 + 0xa9, kEndId};
  EXPECT_EQ(stream(bpe, ids, {}, {1, 1, 1, 1, 1, 1}), (Outcome{"\u00e9", std::nullopt}));
  EXPECT_EQ(TextStreamer(bpe).decode_text(ids), "\u00e9");
}

TEST(TextStreamer, RefusesBadStopStringsAndStates) {
  const Bpe bpe = story_vocabulary().make();
  const TextStreamer streamer(bpe);
  const auto refusal = [&](std::string_view pending, const Stops& stops) {
    const auto step = streamer.push(pending, {}, stops, false);
    return step.ok() ? "accepted" : step.refusal().message;
  };
  EXPECT_EQ(refusal("", Stops(17, std::string(64, 'e'))), "expected at most 16 stop strings, found 17");
  EXPECT_EQ(refusal("", {"a", ""}), "stop string 1: expected 1 to 64 bytes, found 0");
  EXPECT_EQ(refusal("", {std::string(65, 'e')}), "stop string 0: expected 1 to 64 bytes, found 65");
  EXPECT_EQ(refusal("", {"\xc3"}), "stop string 0: expected UTF-8, found bytes that are not");
  EXPECT_EQ(refusal(std::string(68, 'a'), {}), "pending text: expected at most 67 bytes, found 68");
  EXPECT_EQ(refusal("a\xff", {}), "pending text: expected UTF-8, found an invalid sequence at byte 1");
  EXPECT_EQ(refusal("a\xf0\x9f", {}), "accepted");
}

TEST(TextStreamer, EverySplitOfATextGivesTheWhole) {
  const Bpe bpe = story_vocabulary().make();
  const Ids ids = bytes_as_ids("a\u00e9\U0001f600 \n\nQ\n\nQ: x");
  for (size_t cut = 0; cut <= ids.size(); ++cut) {
    for (size_t second = cut; second <= ids.size(); ++second) {
      const std::vector<size_t> sizes = {cut, second - cut, ids.size() - second};
      ASSERT_EQ(stream(bpe, ids, {}, sizes), naive(bpe, ids, {}));
      ASSERT_EQ(stream(bpe, ids, {"\n\nQ:"}, sizes), (Outcome{"a\u00e9\U0001f600 \n\nQ", 0}));
    }
  }
}

TEST(TextStreamer, EqualsTheNaiveVersionOnRandomIds) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const Bpe bpe = story_vocabulary().make();
  // Few bytes, so that stop strings, their beginnings and broken characters are frequent.
  const std::string bytes = "aab\n\xc3\xa9\xf0\x9f\x98\x80\xe2\x82\xac\xff\xed\xa0";
  const Stops texts = {"a",          "ab",           "ba",     "aba",          "\n\n",  "\u00e9",      "a\u00e9",
                       "\U0001f600", "b\U0001f600a", "\ufffd", "\ufffd\ufffd", "aab\n", "\u20ac\u20ac"};
  int stopped = 0;
  for (int round = 0; round < 60'000; ++round) {
    Ids ids;
    for (size_t i = random() % 24; i > 0; --i) {
      const bool any = random() % 8 == 0;
      ids.push_back(any ? static_cast<TokenId>(random() % (bpe.size() + 3))
                        : 4 + static_cast<uint8_t>(bytes[random() % bytes.size()]));
    }
    Stops stops;
    for (size_t i = random() % 5; i > 0; --i) stops.push_back(texts[random() % texts.size()]);
    const Outcome expected = naive(bpe, ids, stops);
    ASSERT_EQ(stream(bpe, ids, stops, random_sizes(random, ids.size())), expected)
        << testing::PrintToString(ids) << testing::PrintToString(stops);
    stopped += expected.stop.has_value();
  }
  EXPECT_GT(stopped, 10'000);
  EXPECT_LT(stopped, 55'000);
}

TEST(TextStreamer, StreamsEncodedTextBack) {
  const Bpe bpe = story_vocabulary().make();
  const std::string text = "Once upon the end, \u00e9 \U0001f600\U0001f600 aaaaaaa\r\n  the end.";
  Encoder encoder(bpe);
  Ids ids;
  ASSERT_TRUE(encoder.encode(text, ids).ok());
  EXPECT_EQ(stream(bpe, ids, {}, std::vector<size_t>(ids.size(), 1)), (Outcome{text, std::nullopt}));
}

}  // namespace text_streamer_test
}  // namespace optserve::tokenizer
