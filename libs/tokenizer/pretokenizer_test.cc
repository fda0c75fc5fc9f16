#include "tokenizer/pretokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace optserve::tokenizer {
namespace pretokenizer_test {

using testing::ElementsAre;

std::vector<std::string> pieces(std::string_view text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = piece_end(text, at);
    out.emplace_back(text.substr(at, end - at));
    at = end;
  }
  return out;
}

struct Letter {
  std::string bytes;
  CharClass kind;
};

// The pattern implemented literally, alternative by alternative, on characters with given classes.
class Pattern {
 public:
  explicit Pattern(const std::vector<Letter>& text) : text_(text) {}

  size_t match(size_t at) const {
    for (const std::string_view literal : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
      if (matches(at, literal)) return at + literal.size();
    }
    for (const CharClass kind : {CharClass::kLetter, CharClass::kNumber, CharClass::kOther}) {
      const size_t first = matches(at, " ") ? at + 1 : at;
      if (run(first, kind) > first) return run(first, kind);
    }
    const size_t end = run(at, CharClass::kSpace);
    for (size_t last = end; last > at; --last) {  // \s+ gives back characters until \S does not follow
      if (last == text_.size() || text_[last].kind == CharClass::kSpace) return last;
    }
    return end;
  }

 private:
  bool matches(size_t at, std::string_view literal) const {
    for (size_t i = 0; i < literal.size(); ++i) {
      if (at + i >= text_.size() || text_[at + i].bytes != literal.substr(i, 1)) return false;
    }
    return true;
  }
  size_t run(size_t at, CharClass kind) const {
    while (at < text_.size() && text_[at].kind == kind) ++at;
    return at;
  }

  const std::vector<Letter>& text_;
};

TEST(UnicodeClasses, KnowsWhatEveryPlaneHolds) {
  EXPECT_EQ(class_of('a'), CharClass::kLetter);
  EXPECT_EQ(class_of('_'), CharClass::kOther);
  EXPECT_EQ(class_of(0x1c), CharClass::kOther);  // a separator for others, not White_Space
  for (const uint32_t space :
       {0x9, 0xa, 0xb, 0xc, 0xd, 0x20, 0x85, 0xa0, 0x1680, 0x2000, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000}) {
    EXPECT_EQ(class_of(space), CharClass::kSpace) << space;
  }
  for (const uint32_t other : {0x200b, 0x180e, 0xfeff, 0x301, 0x1f600, 0xe000, 0x10ffff, 0x110000}) {
    EXPECT_EQ(class_of(other), CharClass::kOther) << other;
  }
  for (const uint32_t letter : {0xaa, 0x3b1, 0x4e00, 0xac00, 0x1d400, 0x20000, 0x323af}) {
    EXPECT_EQ(class_of(letter), CharClass::kLetter) << letter;
  }
  for (const uint32_t number : {0xb2, 0xbd, 0x663, 0x2167, 0x3007, 0x1d7ff, 0x1fbf9}) {
    EXPECT_EQ(class_of(number), CharClass::kNumber) << number;
  }
  for (uint32_t c = 0; c < 128; ++c) EXPECT_EQ(class_of(c), detail::kAsciiClasses[c]) << c;
}

TEST(UnicodeClasses, CountsAreThoseOfUnicode16) {
  std::array<int, 4> counts{};
  for (uint32_t c = 0; c < 0x110000; ++c) ++counts[static_cast<size_t>(class_of(c))];
  EXPECT_EQ(counts[static_cast<size_t>(CharClass::kSpace)], 25);
  EXPECT_EQ(counts[static_cast<size_t>(CharClass::kLetter)], 141028);
  EXPECT_EQ(counts[static_cast<size_t>(CharClass::kNumber)], 1911);
}

TEST(Pretokenizer, SplitsAsThePatternDoes) {
  EXPECT_THAT(pieces("Once upon a time"), ElementsAre("Once", " upon", " a", " time"));
  EXPECT_THAT(pieces("don't we'll I'm 'S ''s"),
              ElementsAre("don", "'t", " we", "'ll", " I", "'m", " '", "S", " ''", "s"));
  EXPECT_THAT(pieces("'sa 'real're"), ElementsAre("'s", "a", " '", "real", "'re"));
  EXPECT_THAT(pieces("a  b"), ElementsAre("a", " ", " b"));
  EXPECT_THAT(pieces("a \n b"), ElementsAre("a", " \n", " b"));
  EXPECT_THAT(pieces("a\n\nb"), ElementsAre("a", "\n", "\n", "b"));
  EXPECT_THAT(pieces("a\nb"), ElementsAre("a", "\n", "b"));
  EXPECT_THAT(pieces("a   "), ElementsAre("a", "   "));
  EXPECT_THAT(pieces(" "), ElementsAre(" "));
  EXPECT_THAT(pieces(""), ElementsAre());
  EXPECT_THAT(pieces("x1y2 34!?"), ElementsAre("x", "1", "y", "2", " 34", "!?"));
  EXPECT_THAT(pieces("a\u00a0b"), ElementsAre("a", "\u00a0", "b"));
  EXPECT_THAT(pieces("e\u0301a"), ElementsAre("e", "\u0301", "a"));
  EXPECT_THAT(pieces(" \u6f22\u5b57\u3000x"), ElementsAre(" \u6f22\u5b57", "\u3000", "x"));
  EXPECT_THAT(pieces("'"), ElementsAre("'"));
  EXPECT_THAT(pieces("'r"), ElementsAre("'", "r"));
}

TEST(Pretokenizer, EqualsThePatternOnRandomText) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::vector<Letter> letters = {
      {"s", CharClass::kLetter},      {"t", CharClass::kLetter},     {"r", CharClass::kLetter},
      {"e", CharClass::kLetter},      {"l", CharClass::kLetter},     {"\u00e9", CharClass::kLetter},
      {"\u6f22", CharClass::kLetter}, {"1", CharClass::kNumber},     {"\u00bd", CharClass::kNumber},
      {"'", CharClass::kOther},       {"'", CharClass::kOther},      {"\u0301", CharClass::kOther},
      {" ", CharClass::kSpace},       {" ", CharClass::kSpace},      {"\n", CharClass::kSpace},
      {"\u3000", CharClass::kSpace},  {"\u00a0", CharClass::kSpace}, {"\U0001f600", CharClass::kOther}};
  for (int round = 0; round < 50'000; ++round) {
    std::vector<Letter> text(random() % 12);
    std::string joined;
    for (Letter& letter : text) {
      letter = letters[random() % letters.size()];
      joined += letter.bytes;
    }
    std::vector<std::string> expected;
    for (size_t at = 0; at < text.size();) {
      const size_t end = Pattern(text).match(at);
      expected.emplace_back();
      for (; at < end; ++at) expected.back() += text[at].bytes;
    }
    ASSERT_EQ(pieces(joined), expected) << joined;
  }
}

}  // namespace pretokenizer_test
}  // namespace optserve::tokenizer
