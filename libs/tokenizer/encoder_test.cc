#include "tokenizer/encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "tokenizer/naive_encoder.h"
#include "tokenizer/small_vocabulary.h"

namespace optserve::tokenizer {
namespace encoder_test {

using testing::HasSubstr;
using Ids = std::vector<TokenId>;

Ids encode(const Bpe& bpe, std::string_view text) {
  Encoder encoder(bpe);
  Ids ids;
  const Status done = encoder.encode(text, ids);
  EXPECT_TRUE(done.ok()) << done.refusal().message;
  return ids;
}

Bpe load_demo() {
  const std::filesystem::path folder = OPTSERVE_DEMO_MODEL;
  return Bpe::load(folder / "gpt2-vocab.json", folder / "gpt2-merges.txt").value();
}

TEST(Encoder, MergesLowestRankFirstThenLeftmost) {
  const Bpe bpe = story_vocabulary().make();
  const auto spelled = [&](std::string_view text) {
    std::vector<std::string> out;
    for (const TokenId id : encode(bpe, text)) out.emplace_back(bpe.token_bytes(id));
    return out;
  };
  EXPECT_THAT(spelled("the end"), testing::ElementsAre("the", " end"));
  EXPECT_THAT(spelled("aaaaaaa"), testing::ElementsAre("aaaa", "aa", "a"));
  EXPECT_THAT(spelled("xyz"), testing::ElementsAre("xy", "z"));
  EXPECT_THAT(spelled(""), testing::ElementsAre());
  EXPECT_THAT(spelled("</s>"), testing::ElementsAre("<", "/", "s", ">"));
}

TEST(Encoder, RefusesInvalidUtf8AndLeavesTheOutputAlone) {
  const Bpe bpe = story_vocabulary().make();
  Encoder encoder(bpe);
  for (const std::string_view bad : {"ab\xff", "ab\xed\xa0\x80", "ab\xc3", "ab\xc0\x80", "ab\xf4\x90\x80\x80"}) {
    Ids ids = {7};
    const Status done = encoder.encode(bad, ids);
    ASSERT_FALSE(done.ok());
    EXPECT_THAT(done.refusal().message, HasSubstr("expected UTF-8, found an invalid sequence at byte 2 of"));
    EXPECT_EQ(ids, Ids{7});
  }
}

TEST(Encoder, AppendsToTheOutput) {
  const Bpe bpe = story_vocabulary().make();
  Encoder encoder(bpe);
  Ids ids = {kEndId};
  ASSERT_TRUE(encoder.encode("a", ids).ok());
  EXPECT_EQ(ids, (Ids{kEndId, bpe.byte_token('a')}));
}

TEST(Encoder, EqualsTheDefinitionOnRandomText) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const Bpe bpe = load_demo();
  Encoder encoder(bpe);  // one for all texts, so that its cache is in play
  const std::vector<std::string> parts = {"the", "and",    "ing",    "a",          "e",      "x",
                                          " ",   "  ",     "'",      "s",          "1",      "\n",
                                          "\r",  "\u00e9", "\u6f22", "\U0001f600", "\u0301", "tion"};
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    const size_t count = round % 10 == 0 ? 200 : 12;  // long runs take the heap, short ones the array
    const size_t variety = 1 + random() % parts.size();
    for (size_t i = 0; i < count; ++i) text += parts[random() % variety];
    Ids ids;
    ASSERT_TRUE(encoder.encode(text, ids).ok());
    ASSERT_EQ(ids, encode_naively(bpe, text)) << text;
    ASSERT_EQ(bpe.decode(ids), text);
  }
}

TEST(Encoder, EveryLengthAroundTheLimitsOfCacheAndArray) {
  const Bpe bpe = load_demo();
  Encoder encoder(bpe);
  for (size_t length = 0; length < 200; ++length) {
    for (const std::string& text : {std::string(length, 'e'), std::string(length, ' '), " " + std::string(length, 'z'),
                                    std::string(length, '?') + "tail"}) {
      const Ids expected = encode_naively(bpe, text);
      for (int pass = 0; pass < 2; ++pass) {  // the second answer comes from the cache where there is one
        Ids ids;
        ASSERT_TRUE(encoder.encode(text, ids).ok());
        ASSERT_EQ(ids, expected) << text;
      }
    }
  }
}

TEST(Encoder, TimeGrowsLikeTheTextForEveryInput) {
  const Bpe bpe = load_demo();
  Encoder encoder(bpe);
  for (const std::string unit : {"x", "e", " ", "\n", "^", "\u0301", "\u6f22", "\U0001f600", "ab", "'s", "0"}) {
    std::string text;
    while (text.size() < 1 << 20) text += unit;
    Ids ids;
    const auto start = std::chrono::steady_clock::now();
    ASSERT_TRUE(encoder.encode(text, ids).ok());
    // A quadratic merge would take minutes for this; the limit leaves room for sanitizers and busy machines.
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10)) << unit;
    EXPECT_EQ(bpe.decode(ids), text);
  }
}

TEST(Encoder, ThreadsShareOneBpe) {
  const Bpe bpe = load_demo();
  const std::string text = "Once upon a time there was a king who don't \U0001f600 " + std::string(300, 'e');
  const Ids expected = encode_naively(bpe, text);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      Encoder encoder(bpe);
      for (int round = 0; round < 100; ++round) {
        Ids ids;
        EXPECT_TRUE(encoder.encode(text, ids).ok());
        EXPECT_EQ(ids, expected);
        EXPECT_EQ(bpe.decode(ids), text);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(Encoder, GivesTheDemoModelsPromptIds) {
  const Bpe bpe = load_demo();
  std::ifstream in(std::string(OPTSERVE_DEMO_MODEL) + "/golden.json");
  const auto golden = nlohmann::json::parse(in);
  ASSERT_FALSE(golden.at("cases").empty());
  for (const auto& test_case : golden.at("cases")) {
    const auto prompt = test_case.at("prompt").get<std::string>();
    Ids ids = {kEndId};
    Encoder encoder(bpe);
    ASSERT_TRUE(encoder.encode(prompt, ids).ok());
    EXPECT_EQ(ids, test_case.at("prompt_ids").get<Ids>()) << prompt;
    EXPECT_EQ(bpe.decode(test_case.at("greedy_ids").get<Ids>()), test_case.at("greedy_text").get<std::string>());
  }
}

struct Golden {
  std::string_view text;
  Ids ids;
};

void expect_golden(const Bpe& bpe, const std::vector<Golden>& cases) {
  for (const auto& [text, ids] : cases) {
    EXPECT_EQ(encode(bpe, text), ids) << text;
    EXPECT_EQ(bpe.decode(ids), text);
  }
}

// The ids are from the tokenizers package 0.23.3.
TEST(Encoder, GivesTheReferencesIdsWithTheDemoVocabulary) {
  expect_golden(load_demo(),
                {{"Once upon a time", {2946, 641, 262, 544}},
                 {"</s>", {31, 18, 86, 33}},
                 {"<pad> <mask>", {31, 83, 301, 33, 224, 31, 80, 1625, 33}},
                 {"Hello,  world!\r\n\tIt's 2022.",
                  {43, 423, 82, 15, 224, 962, 4, 205, 202, 201, 767, 368, 224, 21, 19, 21, 21, 17}},
                 {"na\u00efve \u65e5\u672c\u8a9e \U0001f600",
                  {81, 68, 131, 111, 319, 224, 166, 249, 102, 166, 254, 109, 168, 107, 256, 224, 176, 257, 250, 226}},
                 {"   x", {224, 224, 224, 91}},
                 {" \n \n", {224, 202, 224, 202}},
                 {"a\u00a0\u00a0b", {68, 130, 258, 130, 258, 69}},
                 {"don't DON'T we'll 'llama", {71, 295, 413, 496, 50, 49, 10, 55, 346, 709, 747, 285, 363, 68}}});
}

TEST(Encoder, GivesTheReferencesIdsWithOptsOwnVocabulary) {
  const std::filesystem::path folder = OPTSERVE_OPT_TOKENIZER;
  if (!std::filesystem::exists(folder / "gpt2-vocab.json")) GTEST_SKIP() << "no OPT vocabulary in " << folder;
  const Bpe bpe = Bpe::load(folder / "gpt2-vocab.json", folder / "gpt2-merges.txt").value();
  expect_golden(bpe,
                {{"Once upon a time", {11475, 2115, 10, 86}},
                 {"</s>", {49138, 29, 15698}},
                 {"<pad> <mask>", {41552, 19320, 15698, 28696, 43776, 15698}},
                 {"Hello,  world!\r\n\tIt's 2022.", {31414, 6, 1437, 232, 328, 50121, 50118, 50117, 243, 18, 8157, 4}},
                 {"na\u00efve \u65e5\u672c\u8a9e \U0001f600",
                  {2133, 48350, 47416, 6800, 8210, 44636, 11582, 48537, 17772, 17841, 7471}},
                 {"   x", {1437, 1437, 3023}},
                 {" \n \n", {1437, 50118, 1437, 50118}},
                 {"a\u00a0\u00a0b", {102, 50141, 50141, 428}},
                 {"don't DON'T we'll 'llama", {7254, 75, 24980, 108, 565, 52, 581, 128, 890, 2583}}});
}

}  // namespace encoder_test
}  // namespace optserve::tokenizer
