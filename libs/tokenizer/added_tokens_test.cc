#include "tokenizer/added_tokens.h"

#include <gtest/gtest.h>

#include "tokenizer/encoder.h"
#include "tokenizer/small_vocabulary.h"

namespace optserve::tokenizer {
namespace added_tokens_test {

struct Chat {
  SmallVocabulary vocabulary = story_vocabulary();
  std::vector<AddedToken> tokens;

  TokenId add(const std::string& content, bool special = false) {
    vocabulary.tokens.push_back(content);
    const auto id = static_cast<TokenId>(vocabulary.tokens.size() - 1);
    tokens.push_back({id, content, special, true});
    return id;
  }
  Result<Bpe> parse() const {
    return Bpe::parse(vocabulary.json(), vocabulary.merges_text(), added_tokens_text(tokens));
  }
  std::vector<TokenId> ids(std::string_view text) const {
    const Bpe bpe = parse().value();
    std::vector<TokenId> found;
    EXPECT_TRUE(Encoder(bpe).encode(text, found).ok());
    return found;
  }
  std::vector<TokenId> plain(std::string_view text) const {
    const Bpe bpe = Bpe::parse(vocabulary.json(), vocabulary.merges_text()).value();
    std::vector<TokenId> found;
    EXPECT_TRUE(Encoder(bpe).encode(text, found).ok());
    return found;
  }
};

using Ids = std::vector<TokenId>;
Ids joined(std::initializer_list<Ids> lists) {
  Ids all;
  for (const Ids& list : lists) all.insert(all.end(), list.begin(), list.end());
  return all;
}

TEST(AddedTokens, AreFoundInTextLongestFirst) {
  Chat chat;
  const TokenId user = chat.add("<|user|>"), users = chat.add("<|user|>s"), mark = chat.add("<|");
  EXPECT_EQ(chat.ids("<|user|>the end<|user|>s<|u"),
            joined({{user}, chat.plain("the end"), {users, mark}, chat.plain("u")}));
  EXPECT_EQ(chat.ids(""), Ids{});
  EXPECT_EQ(chat.ids("<|user"), joined({{mark}, chat.plain("user")}));
}

TEST(AddedTokens, TakeTheWhiteSpaceThatIsTheirs) {
  Chat chat;
  const TokenId left = chat.add("<l>"), right = chat.add("<r>"), word = chat.add("ok");
  chat.tokens[0].lstrip = chat.tokens[1].rstrip = chat.tokens[2].single_word = true;
  EXPECT_EQ(chat.ids("a \n<l> b<r>\u00a0 c"),
            joined({chat.plain("a"), {left}, chat.plain(" b"), {right}, chat.plain("c")}));
  EXPECT_EQ(chat.ids("ok book ok_ ok"), joined({{word}, chat.plain(" book ok_ "), {word}}));
}

TEST(AddedTokens, SpecialOnesGiveNoText) {
  Chat chat;
  const TokenId text = chat.add("<|user|>"), special = chat.add("<|end|>", true);
  const Bpe bpe = chat.parse().value();
  EXPECT_EQ(bpe.decode(Ids{text, special, text}), "<|user|><|user|>");
  EXPECT_TRUE(bpe.is_special(special));
  EXPECT_FALSE(bpe.is_special(text));
  EXPECT_NE(bpe.fingerprint(), Bpe::parse(chat.vocabulary.json(), chat.vocabulary.merges_text()).value().fingerprint());
}

TEST(AddedTokens, AreNotLookedForUnlessRecognised) {
  Chat chat;
  chat.add("<|user|>");
  chat.tokens[0].recognised = false;
  EXPECT_EQ(chat.ids("<|user|>"), chat.plain("<|user|>"));
}

TEST(AddedTokens, RoundTripAndRefusals) {
  Chat chat;
  chat.add("\"\\ \u00e9");
  chat.add("<|end|>", true);
  const auto back = parse_added_tokens(added_tokens_text(chat.tokens));
  ASSERT_TRUE(back.ok()) << back.refusal().message;
  EXPECT_EQ(back.value(), chat.tokens);
  for (const char* text : {"", "{}", "[1]", R"([{"id": 1, "content": "x"}])", "[", R"([{"id": -1}])"}) {
    EXPECT_FALSE(parse_added_tokens(text).ok()) << text;
  }
  std::vector<AddedToken> twice = chat.tokens;
  twice.push_back(twice[0]);
  EXPECT_FALSE(parse_added_tokens(added_tokens_text(twice)).ok());
  chat.tokens[0].id = 5;  // another token's
  const auto other = chat.parse();
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.refusal().message.find("as id 5"), std::string::npos) << other.refusal().message;
}

}  // namespace added_tokens_test
}  // namespace optserve::tokenizer
