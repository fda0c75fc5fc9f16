// For tests: bodies that differ a little from a good one, and what is made of them.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "http_api/openai/test_models.h"

namespace optserve::http_api {

class RequestTest : public ::testing::Test {
 protected:
  // The body with some fields added or replaced.
  static nlohmann::json with(nlohmann::json body, const nlohmann::json& changes) {
    if (changes.is_object()) body.update(changes);
    return body;
  }
  // The value of a result that must be good; ends the test if it is an error.
  template <class T>
  static T value_of(Parsed<T> parsed, const nlohmann::json& changes) {
    if (!parsed.ok()) throw Error(changes.dump() + " is refused: " + parsed.error().message);
    return std::move(parsed).value();
  }
  template <class T>
  static void expect_refused(const Parsed<T>& parsed, const nlohmann::json& changes, const std::string& param,
                             const std::string& part = "", int status = 400) {
    ASSERT_FALSE(parsed.ok()) << changes;
    EXPECT_EQ(parsed.error().param, param) << changes << ": " << parsed.error().message;
    EXPECT_EQ(parsed.error().status, status) << changes;
    EXPECT_THAT(parsed.error().message, ::testing::HasSubstr(part)) << changes;
  }

  Model story() const { return models_.find("story").value(); }
  TokenId byte_id(uint8_t byte) const { return story().text->bpe.byte_token(byte); }
  std::vector<TokenId> ids_of(const std::string& text) const {
    std::vector<TokenId> ids;
    EXPECT_TRUE(story().text->encoder.encode(text, ids).ok());
    return ids;
  }
  // The completion of "the end" with these changes.
  CompletionRequest completion(const nlohmann::json& changes) const {
    const nlohmann::json body = with({{"model", "story"}, {"prompt", "the end"}}, changes);
    return value_of(parse_completion(body.dump(), models_, test_context()), changes);
  }

  Models models_ = test_models();
};

}  // namespace optserve::http_api
