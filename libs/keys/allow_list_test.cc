#include "keys/allow_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace optserve::keys {
namespace allow_list_test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::string key_text(int number) {
  PublicKey key;
  key.bytes[0] = static_cast<uint8_t>(number);
  return key.text();
}

AllowedKey parsed(const std::string& rights) {
  auto key = parse_allowed_key(key_text(1) + " name=x " + rights);
  EXPECT_TRUE(key.ok()) << key.refusal().message;
  return key.ok() ? key.value() : AllowedKey{};
}

std::string refusal_of(const std::string& text) {
  const auto list = parse_allow_list(text);
  EXPECT_FALSE(list.ok()) << text;
  return list.ok() ? "" : list.refusal().message;
}

TEST(AllowList, ReadsEveryRight) {
  const auto list = parse_allow_list("# comment\n\n  \t\r\n" + key_text(1) + " name=web client=shop,forum\n" +
                                     key_text(2) + "\tname=gw  client=* operator\r\n" + key_text(3) +
                                     " name=w worker=opt-125m tokenizer=* converter=/models converter=/data\n");
  ASSERT_TRUE(list.ok()) << list.refusal().message;
  ASSERT_EQ(list.value().keys().size(), 3u);
  const AllowedKey& web = list.value().keys()[0];
  EXPECT_EQ(web.name, "web");
  EXPECT_THAT(web.tenants.names(), ElementsAre("forum", "shop"));
  EXPECT_TRUE(web.tenants.contains("shop"));
  EXPECT_FALSE(web.tenants.contains("sho"));
  EXPECT_FALSE(web.tenants.contains(""));
  EXPECT_FALSE(web.is_operator);
  const AllowedKey& gateway = list.value().keys()[1];
  EXPECT_TRUE(gateway.tenants.is_all() && gateway.tenants.contains("") && gateway.tenants.contains("any"));
  EXPECT_TRUE(gateway.is_operator);
  const AllowedKey& service = list.value().keys()[2];
  EXPECT_TRUE(service.worker_models.contains("opt-125m"));
  EXPECT_FALSE(service.worker_models.contains("opt-30b"));
  EXPECT_TRUE(service.tokenizer_models.contains("opt-30b"));
  EXPECT_THAT(service.converter_folders, ElementsAre("/models", "/data"));
}

TEST(AllowList, EachRightOpensOneDoor) {
  for (const char* rights : {"client=a", "client", "client=*", "operator"}) {
    EXPECT_TRUE(parsed(rights).may_enter(Door::kClients)) << rights;
    EXPECT_FALSE(parsed(rights).may_enter(Door::kServices)) << rights;
  }
  for (const char* rights : {"worker=m", "tokenizer=m", "converter=/m", "worker=*"}) {
    EXPECT_FALSE(parsed(rights).may_enter(Door::kClients)) << rights;
    EXPECT_TRUE(parsed(rights).may_enter(Door::kServices)) << rights;
  }
}

TEST(AllowList, TheTenantWithoutANameIsNamedByTheWordAlone) {
  const AllowedKey only = parsed("client");
  EXPECT_TRUE(only.tenants.contains(""));
  EXPECT_FALSE(only.tenants.contains("a"));
  const AllowedKey both = parsed("client client=a");
  EXPECT_TRUE(both.tenants.contains("") && both.tenants.contains("a"));
}

TEST(AllowList, WhatIsWrittenIsReadAgain) {
  for (const char* rights : {"client", "client client=a,b", "client=* operator", "operator", "worker=a,b tokenizer=*",
                             "converter=/a converter=/b", "converter=/"}) {
    const AllowedKey key = parsed(rights);
    const auto again = parse_allowed_key(allow_line(key));
    ASSERT_TRUE(again.ok()) << allow_line(key);
    EXPECT_EQ(again.value(), key) << rights;
  }
}

TEST(AllowList, SeveralKeysMayHaveOneName) {
  const auto list = parse_allow_list(key_text(1) + " name=web client=a\n" + key_text(2) + " name=web client=a\n");
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list.value().keys().size(), 2u);
}

TEST(AllowList, RefusesWithTheLine) {
  const std::string good = key_text(9) + " name=good client=a\n";
  const struct {
    std::string line, message;
  } cases[] = {
      {"client=a", "expected opt-public-"},
      {key_text(1), "name=NAME"},
      {key_text(1) + " client=a", "name=NAME"},
      {key_text(1) + " name= client=a", "name"},
      {key_text(1) + " name=a/b client=a", "name"},
      {key_text(1) + " name=a", "no right"},
      {key_text(1) + " name=a client=", "client"},
      {key_text(1) + " name=a client=a,", "client"},
      {key_text(1) + " name=a client=a,a", "twice"},
      {key_text(1) + " name=a client=a client=b", "twice"},
      {key_text(1) + " name=a client=*,a", "client"},
      {key_text(1) + " name=a client client=*", "already"},
      {key_text(1) + " name=a operator operator", "twice"},
      {key_text(1) + " name=a operator=yes", "expected a right"},
      {key_text(1) + " name=a Client=a", "expected a right"},
      {key_text(1) + " name=a worker", "expected a right"},
      {key_text(1) + " name=a converter=models", "absolute"},
      {key_text(1) + " name=a converter=/a/../b", "without"},
      {key_text(1) + " name=a converter=/a/", "without"},
      {key_text(1) + " name=a converter=/a converter=/a", "twice"},
      {key_text(1) + " name=a client=a # comment", "expected a right"},
      {key_text(9) + " name=again client=a", "stands twice"},
      {key_text(1).substr(0, 40) + " name=a client=a", "64"},
  };
  for (const auto& wrong : cases) {
    EXPECT_THAT(refusal_of("# first\n" + good + wrong.line + "\n"),
                testing::AllOf(HasSubstr("line 3: "), HasSubstr(wrong.message)))
        << wrong.line;
  }
}

TEST(AllowList, ARefusalNeverRepeatsASecret) {
  const std::string secret = new_secret_key().text();
  for (const std::string& line :
       {secret + " name=a client=a", key_text(1) + " name=" + secret + " client=a", key_text(1) + " name=a " + secret,
        key_text(1) + " name=a client=" + secret, key_text(1) + " name=a converter=" + secret, secret}) {
    EXPECT_THAT(refusal_of(line), Not(HasSubstr(secret.substr(kSecretPrefix.size(), 16)))) << line.size();
  }
}

TEST(AllowList, BoundsHold) {
  std::string text;
  for (size_t i = 0; i <= kAllowedKeysMax; ++i) {
    PublicKey key;
    key.bytes[0] = static_cast<uint8_t>(i), key.bytes[1] = static_cast<uint8_t>(i >> 8), key.bytes[2] = 7;
    text += key.text() + " name=a client=a\n";
  }
  EXPECT_THAT(refusal_of(text), HasSubstr("more than 10000 keys"));
  std::string names = "a0";
  for (size_t i = 1; i <= kNamesPerKeyMax; ++i) names += ",a" + std::to_string(i);
  EXPECT_THAT(refusal_of(key_text(1) + " name=a client=" + names), HasSubstr("more than"));
}

TEST(AllowList, FoldersAreNotMereBeginnings) {
  EXPECT_TRUE(lies_in("/models", "/models") && lies_in("/models/opt", "/models") && lies_in("/any", "/"));
  EXPECT_FALSE(lies_in("/models2", "/models"));
  EXPECT_FALSE(lies_in("/other", "/models"));
  EXPECT_FALSE(lies_in("models", "/"));
}

}  // namespace
}  // namespace allow_list_test
}  // namespace optserve::keys
