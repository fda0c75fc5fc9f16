#include "http_api/tokenize/tokenize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "http_api/openai/test_models.h"

namespace optserve::http_api {
namespace tokenize_test {

using nlohmann::json;

class TokenizeTest : public ::testing::Test {
 protected:
  json tokens(const json& body) { return answer(tokenize(body.dump(), models_)); }
  json text(const json& body) { return answer(detokenize(body.dump(), models_)); }
  static json answer(const Parsed<std::string>& parsed) {
    EXPECT_TRUE(parsed.ok()) << (parsed.ok() ? "" : parsed.error().message);
    return parsed.ok() ? json::parse(parsed.value()) : json();
  }

  Models models_ = test_models();
};

TEST_F(TokenizeTest, ThereAndBack) {
  const json with = tokens({{"model", "story"}, {"prompt", "the end \u20ac"}, {"return_token_strs", true}});
  EXPECT_EQ(with["tokens"][0], 2);
  EXPECT_EQ(with["token_strs"][0], "</s>");
  EXPECT_EQ(with["count"], with["tokens"].size());
  EXPECT_EQ(with["token_strs"].size(), with["tokens"].size());
  EXPECT_EQ(with["max_model_len"], kTestContext);
  const json without = tokens({{"model", "story"}, {"prompt", "the end \u20ac"}, {"add_special_tokens", false}});
  EXPECT_EQ(without["count"], with["count"].get<int>() - 1);
  EXPECT_EQ(without["token_strs"], nullptr);
  EXPECT_EQ(text({{"model", "story"}, {"tokens", with["tokens"]}})["prompt"], "the end \u20ac");
  EXPECT_EQ(text({{"model", "story"}, {"tokens", json::array()}})["prompt"], "");
  EXPECT_EQ(tokens({{"model", "story"}, {"prompt", ""}})["tokens"], json({2}));
}

TEST_F(TokenizeTest, ASpellingOfASpecialTokenAloneIsThatToken) {
  EXPECT_EQ(tokens({{"prompt", "</s>"}, {"model", "story"}, {"add_special_tokens", false}})["tokens"], json({2}));
  EXPECT_EQ(tokens({{"prompt", "<pad>"}, {"model", "story"}, {"add_special_tokens", false}})["tokens"], json({1}));
  const json inside = tokens({{"prompt", "a</s>"}, {"model", "story"}, {"add_special_tokens", false}});
  EXPECT_EQ(text({{"model", "story"}, {"tokens", inside["tokens"]}})["prompt"], "a</s>") << "text like any other";
}

TEST_F(TokenizeTest, BadBodiesAreRefused) {
  const auto param = [&](const Parsed<std::string>& parsed) { return parsed.ok() ? "none" : parsed.error().param; };
  EXPECT_EQ(param(tokenize(R"({"model":"story"})", models_)), "prompt");
  EXPECT_EQ(param(tokenize(R"({"model":"story","prompt":null})", models_)), "prompt");
  EXPECT_EQ(param(tokenize(R"({"model":"story","prompt":["a"]})", models_)), "prompt");
  EXPECT_EQ(param(tokenize(R"({"model":"story","prompt":"a","promt":1})", models_)), "promt");
  EXPECT_EQ(param(tokenize(R"({"model":"other","prompt":"a"})", models_)), "model");
  EXPECT_EQ(param(tokenize(R"({"model":"plain","prompt":"a"})", models_)), "model");
  EXPECT_EQ(param(tokenize("[", models_)), "");
  EXPECT_EQ(param(detokenize(R"({"model":"story","tokens":null})", models_)), "tokens");
  EXPECT_EQ(param(detokenize(R"({"model":"story","tokens":[300]})", models_)), "tokens");
  EXPECT_EQ(param(detokenize(R"({"model":"story","tokens":[-1]})", models_)), "tokens");
  EXPECT_EQ(param(detokenize(R"({"model":"story","tokens":"2"})", models_)), "tokens");
  EXPECT_EQ(param(tokenizer_info("plain", models_)), "model");
  EXPECT_EQ(param(tokenizer_info("", models_)), "model") << "there are two";
}

TEST_F(TokenizeTest, TheInfoNamesTheEndAndTheBeginning) {
  const json info = answer(tokenizer_info("story", models_));
  EXPECT_EQ(info["eos_token"], "</s>");
  EXPECT_EQ(info["bos_token"], "</s>");
  EXPECT_EQ(info["eos_token_id"], 2);
  models_.set_served({});
  EXPECT_EQ(answer(tokenizer_info("", models_)), info) << "the only model";
}

TEST_F(TokenizeTest, TextsOfDifferentTokensDiffer) {
  const Model model = models_.find("story").value();
  std::set<std::string> texts;
  for (TokenId id = 0; id < kTestVocab; ++id) texts.insert(model.texts->text(id));
  EXPECT_EQ(texts.size(), static_cast<size_t>(kTestVocab)) << "padding rows included";
  // A vocabulary in which a special token is spelled like the text of another token.
  tokenizer::SmallVocabulary vocabulary(tokenizer::Pairs{{"\u0120", "t"}});
  vocabulary.tokens.push_back(" t");
  const tokenizer::Bpe bpe = vocabulary.make();
  const auto last = static_cast<TokenId>(bpe.size() - 1);
  EXPECT_EQ(TokenTexts(bpe).text(260), " t");
  EXPECT_EQ(TokenTexts(bpe).text(last), "token_id:" + std::to_string(last));
}

TEST_F(TokenizeTest, ModelsAreListed) {
  const json list = json::parse(models_.list_body());
  EXPECT_EQ(list["object"], "list");
  ASSERT_EQ(list["data"].size(), 2u);
  EXPECT_EQ(list["data"][0], json::parse(R"({"id": "plain", "object": "model", "created": 1700000000,
      "owned_by": "optserve", "root": "plain", "parent": null, "max_model_len": null})"));
  EXPECT_EQ(list["data"][1]["max_model_len"], kTestContext);
  EXPECT_EQ(answer(models_.card_body("story")), list["data"][1]);
  EXPECT_EQ(models_.card_body("other").error().status, 404);
}

}  // namespace tokenize_test
}  // namespace optserve::http_api
