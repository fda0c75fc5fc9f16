#include "tokenizer/bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "support/temporary_folder.h"
#include "tokenizer/small_vocabulary.h"
#include "tokenizer/vocabulary_file.h"

namespace optserve::tokenizer {
namespace bpe_test {

using testing::HasSubstr;

std::string refusal_of(const SmallVocabulary& vocabulary) {
  const auto bpe = Bpe::parse(vocabulary.json(), vocabulary.merges_text());
  return bpe.ok() ? "accepted" : bpe.refusal().message;
}

std::string refusal_of_json(std::string_view json) {
  const auto tokens = read_vocabulary(json);
  return tokens.ok() ? "accepted" : tokens.refusal().message;
}

TEST(ByteAlphabet, SpellsEveryByteDifferentlyAndBack) {
  std::vector<std::string> spellings;
  for (int byte = 0; byte < 256; ++byte) {
    spellings.push_back(spelling_of_byte(static_cast<uint8_t>(byte)));
    EXPECT_EQ(bytes_of_spelling(spellings.back()), std::string(1, static_cast<char>(byte)));
  }
  std::sort(spellings.begin(), spellings.end());
  EXPECT_EQ(std::adjacent_find(spellings.begin(), spellings.end()), spellings.end());
  EXPECT_EQ(spelling_of_byte(' '), "\u0120");
  EXPECT_EQ(spelling_of_byte('\n'), "\u010a");
  EXPECT_EQ(bytes_of_spelling("\u0144"), std::nullopt);
  EXPECT_EQ(bytes_of_spelling("a b"), std::nullopt);
  EXPECT_EQ(bytes_of_spelling("\xe2\x82\xac"), std::nullopt);
  EXPECT_EQ(bytes_of_spelling("\xc4"), std::nullopt);
}

TEST(Bpe, DecodesBytesAndSkipsSpecialAndUnusedIds) {
  const Bpe bpe = story_vocabulary().make();
  const auto mask = static_cast<TokenId>(bpe.size() - 1);
  EXPECT_EQ(bpe.spelling(mask), "<mask>");
  EXPECT_TRUE(bpe.is_special(mask));
  for (TokenId id = kBeginId; id <= kUnknownId; ++id) EXPECT_TRUE(bpe.is_special(id));
  EXPECT_FALSE(bpe.is_special(4));
  EXPECT_FALSE(bpe.is_special(mask + 1));
  const std::vector<TokenId> ids = {kEndId, 4 + 'h', kPadId, 4 + 'i', mask, mask + 1, 50271, -1, 4 + 0xff};
  EXPECT_EQ(bpe.decode(ids), "hi\xff");
}

TEST(Bpe, FingerprintTellsVocabulariesApart) {
  const SmallVocabulary vocabulary = story_vocabulary();
  SmallVocabulary other(Pairs{{"a", "b"}, {"c", "d"}});
  SmallVocabulary reordered = other;
  std::swap(reordered.merges[0], reordered.merges[1]);
  EXPECT_EQ(vocabulary.make().fingerprint(), vocabulary.make().fingerprint());
  EXPECT_NE(vocabulary.make().fingerprint(), other.make().fingerprint());
  EXPECT_NE(reordered.make().fingerprint(), other.make().fingerprint());
}

TEST(Bpe, RefusesAnotherModelsOrder) {
  SmallVocabulary vocabulary = story_vocabulary();
  std::swap(vocabulary.tokens[0], vocabulary.tokens[1]);
  EXPECT_EQ(refusal_of(vocabulary), "vocabulary: expected \"<s>\" as id 0 (OPT's order), found \"<pad>\"");
}

TEST(Bpe, RefusesMergesThatCannotBe) {
  SmallVocabulary vocabulary(Pairs{{"a", "b"}});
  vocabulary.merges[0] = {"a", "bc"};
  EXPECT_EQ(refusal_of(vocabulary), "merges line 2: \"bc\" is not in the vocabulary");
  vocabulary.merges[0] = {"bc", "a"};
  EXPECT_EQ(refusal_of(vocabulary), "merges line 2: \"bc\" is not in the vocabulary");
  vocabulary.merges[0] = {"a", "c"};
  EXPECT_EQ(refusal_of(vocabulary), "merges line 2: its result \"ac\" is not in the vocabulary");
  vocabulary.merges = {{"a", "b"}, {"a", "b"}};
  EXPECT_EQ(refusal_of(vocabulary), "merges line 3: \"a\" and \"b\" merge twice");
  SmallVocabulary early(Pairs{{"a", "b"}, {"ab", "c"}});
  std::swap(early.merges[0], early.merges[1]);
  EXPECT_EQ(refusal_of(early), "merges line 2: \"ab\" is neither a byte nor made by an earlier merge");
}

TEST(Bpe, NoMergeMakesASpecialTokenOutOfText) {
  SmallVocabulary vocabulary(Pairs{{"<", "s"}});
  vocabulary.merges.push_back({"<s", ">"});
  EXPECT_EQ(refusal_of(vocabulary), "merges line 3: it would make the special token \"<s>\" out of plain text");
}

TEST(Bpe, RefusesAVocabularyWithoutAByte) {
  SmallVocabulary vocabulary(Pairs{});
  vocabulary.tokens[4 + ' '] = "spam";
  EXPECT_EQ(refusal_of(vocabulary), "vocabulary: no token \"\\xc4\\xa0\" for byte 32");
}

TEST(VocabularyFile, RefusesWhatIsNotOneFlatObjectOfIds) {
  EXPECT_EQ(refusal_of_json(R"({"a": 0, "b": 1})"), "accepted");
  EXPECT_EQ(refusal_of_json(R"({"a": 0, "a": 1})"), "vocabulary: token \"a\" stands there twice");
  EXPECT_EQ(refusal_of_json(R"({"a": 0, "\u0061": 1})"), "vocabulary: token \"a\" stands there twice");
  EXPECT_EQ(refusal_of_json(R"({"a": 0, "b": 0})"), "vocabulary: id 0 belongs to both \"a\" and \"b\"");
  EXPECT_EQ(refusal_of_json(R"({"a": 0, "b": 2})"), "vocabulary: no token has id 1, expected every id below 3");
  EXPECT_EQ(refusal_of_json(R"({"a": -1})"), "vocabulary: token \"a\": expected its id, found -1");
  EXPECT_EQ(refusal_of_json(R"({"a": 1.0})"), "vocabulary: token \"a\": expected its id, found 1.0");
  EXPECT_EQ(refusal_of_json(R"({"a": 262144})"), "vocabulary: token \"a\" has id 262144, expected one below 262144");
  EXPECT_EQ(refusal_of_json(R"({"a": {"b": 0}})"), "vocabulary: token \"a\": expected its id, found an object");
  EXPECT_EQ(refusal_of_json(R"({"a": [0]})"), "vocabulary: token \"a\": expected its id, found an array");
  EXPECT_EQ(refusal_of_json(R"({"a": null})"), "vocabulary: token \"a\": expected its id, found null");
  EXPECT_EQ(refusal_of_json(R"({"a": "0"})"), "vocabulary: token \"a\": expected its id, found a string");
  EXPECT_EQ(refusal_of_json(R"({"": 0})"), "vocabulary: token \"\" has 0 bytes, expected 1 to 1024");
  EXPECT_THAT(refusal_of_json("{\"" + std::string(1025, 'a') + "\": 0}"), HasSubstr("has 1025 bytes"));
  EXPECT_EQ(refusal_of_json("[0]"), "vocabulary: expected an object {\"token\": id, ...}, found an array");
  EXPECT_EQ(refusal_of_json("7"), "vocabulary: expected an object {\"token\": id, ...}, found 7");
  EXPECT_THAT(refusal_of_json(""), HasSubstr("not JSON at byte"));
  EXPECT_THAT(refusal_of_json(R"({"a": 0)"), HasSubstr("not JSON at byte"));
  EXPECT_THAT(refusal_of_json("{\"\xff\": 0}"), HasSubstr("not JSON at byte"));
  EXPECT_THAT(refusal_of_json(std::string(100'000, '[')), HasSubstr("found an array"));
}

TEST(VocabularyFile, RefusesOversizedFiles) {
  const std::string large(kVocabularyFileBytesMax + 1, ' ');
  EXPECT_EQ(refusal_of_json(large), "vocabulary: expected at most 33554432 bytes, found 33554433");
  EXPECT_EQ(read_merges(large).refusal().message, "merges: expected at most 33554432 bytes, found 33554433");
}

TEST(VocabularyFile, ReadsMergesLineByLine) {
  const auto merges = read_merges("#version: 0.2\na b\r\n#version x");
  ASSERT_TRUE(merges.ok());
  ASSERT_EQ(merges.value().size(), 2u);
  EXPECT_EQ(merges.value()[0].right, "b");
  EXPECT_EQ(merges.value()[1].left, "#version");
  EXPECT_EQ(merges.value()[1].number, 3u);
  for (const std::string line : {"ab", "a  b", " a", "a ", "a b c", "", "a b ", " "}) {
    const auto refused = read_merges("x y\n" + line + "\nx z\n");
    ASSERT_FALSE(refused.ok()) << line;
    EXPECT_EQ(refused.refusal().message, "merges line 2: expected two tokens and one space, found \"" + line + "\"");
  }
}

TEST(VocabularyFile, QuotesForMessages) {
  EXPECT_EQ(in_quotes("a\n\xff"), "\"a\\x0a\\xff\"");
  EXPECT_EQ(in_quotes(std::string(81, 'a')), "\"" + std::string(80, 'a') + "\"...");
}

TEST(Bpe, LoadNamesTheFiles) {
  EXPECT_THROW((void)Bpe::load("/nonexistent/vocab.json", "/nonexistent/merges.txt"), Error);
  const test_support::TemporaryFolder folder;
  std::ofstream(folder / "bpe_test_vocab.json") << "{}";
  std::ofstream(folder / "bpe_test_merges.txt") << "";
  const auto bpe = Bpe::load(folder / "bpe_test_vocab.json", folder / "bpe_test_merges.txt");
  ASSERT_FALSE(bpe.ok());
  EXPECT_EQ(bpe.refusal().code, ErrorCode::kUnsupportedFormat);
  EXPECT_THAT(bpe.refusal().message, HasSubstr("bpe_test_vocab.json"));
  EXPECT_THAT(bpe.refusal().message, HasSubstr("expected \"<s>\" as id 0 (OPT's order), found \"\""));
}

TEST(Bpe, LoadsTheDemoVocabulary) {
  const std::filesystem::path folder = OPTSERVE_DEMO_MODEL;
  const auto bpe = Bpe::load(folder / "gpt2-vocab.json", folder / "gpt2-merges.txt");
  ASSERT_TRUE(bpe.ok()) << bpe.refusal().message;
  EXPECT_EQ(bpe.value().size(), 4096u);
  EXPECT_EQ(bpe.value().merges().size(), 3836u);
  for (TokenId id = 4; id < 4096; ++id) EXPECT_FALSE(bpe.value().is_special(id)) << id;
}

TEST(Bpe, LoadsOptsOwnVocabulary) {
  const std::filesystem::path folder = OPTSERVE_OPT_TOKENIZER;
  if (!std::filesystem::exists(folder / "gpt2-vocab.json")) GTEST_SKIP() << "no OPT vocabulary in " << folder;
  const auto bpe = Bpe::load(folder / "gpt2-vocab.json", folder / "gpt2-merges.txt");
  ASSERT_TRUE(bpe.ok()) << bpe.refusal().message;
  EXPECT_EQ(bpe.value().size(), 50265u);
  std::vector<TokenId> special;
  for (TokenId id = 0; id < 50272; ++id) {
    if (bpe.value().is_special(id)) special.push_back(id);
  }
  EXPECT_THAT(special, testing::ElementsAre(0, 1, 2, 3, 50260, 50261, 50262, 50263, 50264));
  EXPECT_EQ(bpe.value().spelling(50264), "<mask>");
  EXPECT_EQ(bpe.value().token_bytes(50118), "\n");
}

}  // namespace bpe_test
}  // namespace optserve::tokenizer
