#include "gateway/access/api_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "gateway/access/new_key.h"

namespace optserve::gateway {
namespace api_key_test {

using ::testing::HasSubstr;
using ::testing::Not;

ApiKey key_of(const std::string& id, const std::string& secret) {
  ApiKey key{.id = id, .tenant = "t", .may_submit = true};
  EXPECT_TRUE(set_secret(key, secret).ok());
  return key;
}

std::string fault_of(const std::string& text) {
  const auto keys = parse_api_keys(text);
  return keys.ok() ? "" : keys.refusal().message;
}

TEST(ApiKey, ALineGivesTheKeyBack) {
  ApiKey key = key_of("web-1", random_api_key());
  key.may_operate = true;
  key.requests_per_minute = 60;
  key.jobs_max = 5;
  key.expires_ms = parse_expiry("2027-01-31T12:30:05Z").value();
  const auto keys = parse_api_keys("# keys\n\n" + api_key_line(key) + "\n");
  ASSERT_TRUE(keys.ok()) << keys.refusal().message;
  ASSERT_EQ(keys.value().size(), 1u);
  const ApiKey& read = keys.value()[0];
  EXPECT_EQ(api_key_line(read), api_key_line(key));
  EXPECT_TRUE(read.may_submit && read.may_operate);
  EXPECT_EQ(read.digest, key.digest);
  EXPECT_EQ(read.expires_ms, key.expires_ms);
}

TEST(ApiKey, IsFoundByItsSecretAlone) {
  const std::string one = random_api_key(), two = random_api_key();
  EXPECT_NE(one, two);
  const std::vector<ApiKey> keys{key_of("one", one), key_of("two", two)};
  EXPECT_EQ(find_api_key(keys, one, 0)->id, "one");
  EXPECT_EQ(find_api_key(keys, two, 0)->id, "two");
  EXPECT_EQ(find_api_key(keys, random_api_key(), 0), nullptr);
  EXPECT_EQ(find_api_key(keys, one.substr(0, one.size() - 1), 0), nullptr);
  EXPECT_EQ(find_api_key(keys, one + "0", 0), nullptr);
  EXPECT_EQ(find_api_key(keys, "", 0), nullptr);
}

TEST(ApiKey, TheSameSecretHasAnotherHashEachTime) {
  const std::string secret = random_api_key();
  EXPECT_NE(key_of("a", secret).digest, key_of("a", secret).digest);
}

TEST(ApiKey, ExpiresAtItsMoment) {
  const std::string secret = random_api_key();
  std::vector<ApiKey> keys{key_of("one", secret)};
  keys[0].expires_ms = 1'000;
  EXPECT_NE(find_api_key(keys, secret, 999), nullptr);
  EXPECT_EQ(find_api_key(keys, secret, 1'000), nullptr);
}

TEST(ApiKey, SecretsThatCanBeGuessedAreRefused) {
  ApiKey key;
  EXPECT_FALSE(set_secret(key, std::string(kApiKeyBytesMin - 1, 'x')).ok());
  EXPECT_TRUE(set_secret(key, std::string(kApiKeyBytesMin, 'x')).ok());
  EXPECT_FALSE(set_secret(key, std::string(kApiKeyBytesMax + 1, 'x')).ok());
  // The line of a short key must have been made elsewhere: the key is not accepted.
  key.salt = std::string(32, '0');
  key.digest = sha256(key.salt + "short");
  EXPECT_EQ(find_api_key(std::span(&key, 1), "short", 0), nullptr);
}

TEST(ApiKey, FaultsNameTheLineAndNeverAKey) {
  const std::string good = api_key_line(key_of("a", random_api_key()));
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string line = good;
    const size_t at = line.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return line.replace(at, from.size(), to);
  };
  const std::string planted = "PLANTED-" + random_api_key();
  EXPECT_EQ(fault_of(good), "");
  EXPECT_THAT(fault_of(good + "\n" + planted), AllOf(HasSubstr("line 2: "), Not(HasSubstr("PLANTED"))));
  for (const std::string& wrong :
       {with("\"id\":\"a\"", "\"id\":\"" + planted + " !\""), with("\"id\":\"a\"", "\"id\":\"\""),
        with("\"id\":\"a\"", "\"" + planted + "\":\"a\""), with("\"tenant\":\"t\"", "\"tenant\":\"\""),
        with("\"tenant\":\"t\"", "\"tenant\":\"" + planted + "!\""), with("\"tenant\":\"t\"", "\"tenant\":7"),
        with("[\"submit\"]", "[]"), with("[\"submit\"]", "[\"" + planted + "\"]"), with("[\"submit\"]", "true"),
        with("\"sha256\":\"", "\"sha256\":\"" + planted), with("\"salt\":\"", "\"salt\":\"" + planted),
        with("\"rights\"", "\"expires\":\"" + planted + "\",\"rights\""),
        with("\"rights\"", "\"jobs_max\":-1,\"rights\""), with("\"rights\"", "\"jobs_max\":1.5,\"rights\""),
        with("\"rights\"", "\"requests_per_minute\":\"" + planted + "\",\"rights\"")}) {
    EXPECT_THAT(fault_of(wrong), AllOf(HasSubstr("line 1: "), Not(HasSubstr("PLANTED")))) << wrong;
  }
  EXPECT_THAT(fault_of(good + "\n" + good), HasSubstr("line 2: another line has the same id"));
}

TEST(ApiKey, AFileHasAThousandKeysAtMost) {
  std::string lines;
  for (size_t i = 0; i < kApiKeysMax; ++i) {
    lines += api_key_line(key_of("k" + std::to_string(i), random_api_key())) + "\n";
  }
  EXPECT_EQ(fault_of(lines), "");
  EXPECT_THAT(fault_of(lines + api_key_line(key_of("more", random_api_key()))), HasSubstr("more than 1000 keys"));
}

TEST(ApiKey, DatesAreStrict) {
  EXPECT_EQ(parse_expiry("1970-01-02").value(), 86'400'000);
  EXPECT_EQ(parse_expiry("1970-01-01T01:00:01Z").value(), 3'601'000);
  for (const char* wrong : {"", "2027", "2027-02-30", "2027-13-01", "2027/01/01", "2027-01-01T25:00:00Z",
                            "2027-01-01T00:00:00+", "2027-01-01 00:00:00Z", "tomorrow!!"}) {
    EXPECT_FALSE(parse_expiry(wrong).ok()) << wrong;
  }
}

TEST(NewKey, PrintsTheKeyOnceAndTheLineForTheFile) {
  std::ostringstream out, err;
  const char* argv[] = {"new-key", "web-1", "--tenant", "web", "--jobs-max", "3", "--expires", "2027-01-31"};
  ASSERT_EQ(run_new_key(std::size(argv), argv, out, err), 0) << err.str();
  const auto keys = parse_api_keys(out.str());
  ASSERT_TRUE(keys.ok()) << keys.refusal().message;
  const std::string secret = err.str().substr(err.str().find("osk-"), 68);
  EXPECT_EQ(find_api_key(keys.value(), secret, 0)->id, "web-1");
  EXPECT_THAT(out.str(), Not(HasSubstr(secret)));
  EXPECT_EQ(keys.value()[0].tenant, "web");
  const char* useless[] = {"new-key", "web-1", "--no-submit"};
  EXPECT_NE(run_new_key(std::size(useless), useless, out, err), 0);
}

}  // namespace api_key_test
}  // namespace optserve::gateway
