#include "keys/tenant_quotas.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
namespace optserve::keys {
namespace tenant_quotas_test {
namespace {

using testing::HasSubstr;

TenantQuotas parsed(const std::string& text) {
  auto quotas = parse_tenant_quotas(text);
  EXPECT_TRUE(quotas.ok()) << quotas.refusal().message;
  return quotas.ok() ? quotas.value() : TenantQuotas{};
}

std::string refusal_of(const std::string& text) {
  const auto quotas = parse_tenant_quotas(text);
  EXPECT_FALSE(quotas.ok()) << text;
  return quotas.ok() ? "" : quotas.refusal().message;
}

TEST(TenantQuotas, ReadsEveryWord) {
  const TenantQuotas quotas = parsed(
      "# comment\n\n \t\r\n"
      "tenant=shop jobs=1 running=8 bytes=2 tokens=3 conversions=4 tokens-per-minute=5 messages-per-minute=6 "
      "priority=7\r\n"
      "tenant\tjobs=0\n");
  const TenantQuota expected{1, 8, 2, 3, 4, 5, 6, 7};
  EXPECT_EQ(quotas.of("shop"), expected);
  EXPECT_EQ(quotas.of("").jobs, 0);
  EXPECT_EQ(quotas.of("unknown"), TenantQuota{});
}

TEST(TenantQuotas, ALineTakesTheRestFromThatOfAllOthers) {
  const TenantQuotas quotas = parsed("tenant=shop tokens=5 priority=none\ntenant=* jobs=10 tokens=20 priority=2\n");
  EXPECT_EQ(quotas.of("shop").jobs, 10);
  EXPECT_EQ(quotas.of("shop").tokens, 5);
  EXPECT_EQ(quotas.of("shop").priority, 9);
  EXPECT_EQ(quotas.of("unknown").tokens, 20);
  EXPECT_EQ(quotas.of("unknown").priority, 2);
  EXPECT_EQ(quotas.of("").jobs, 10);
}

TEST(TenantQuotas, NoneLiftsALimit) { EXPECT_EQ(parsed("tenant=* jobs=1\ntenant=a jobs=none").of("a").jobs, kNoQuota); }

TEST(TenantQuotas, WhatIsWrittenIsReadAgain) {
  const TenantQuotas quotas = parsed("tenant=* jobs=10 priority=3\ntenant=a bytes=none tokens=7\ntenant bytes=1\n");
  const TenantQuotas again = parsed(tenant_quotas_text(quotas));
  EXPECT_EQ(again.named(), quotas.named());
  EXPECT_EQ(again.others(), quotas.others());
}

TEST(TenantQuotas, RefusesWithTheLine) {
  EXPECT_THAT(refusal_of("\ntenant=a job=1"), HasSubstr("line 2: expected jobs, running, bytes, tokens"));
  EXPECT_THAT(refusal_of("jobs=1"), HasSubstr("line 1: expected tenant=NAME first"));
  EXPECT_THAT(refusal_of("tenant=a jobs=-1"), HasSubstr("jobs is -1, expected 0 to"));
  EXPECT_THAT(refusal_of("tenant=a jobs=1k"), HasSubstr("expected a whole number"));
  EXPECT_THAT(refusal_of("tenant=a jobs="), HasSubstr("expected a whole number"));
  EXPECT_THAT(refusal_of("tenant=a jobs"), HasSubstr("expected a whole number"));
  EXPECT_THAT(refusal_of("tenant=a jobs=99999999999999999999"), HasSubstr("expected a whole number"));
  EXPECT_THAT(refusal_of("tenant=a jobs=1 jobs=2"), HasSubstr("jobs: stands twice"));
  EXPECT_THAT(refusal_of("tenant=a priority=10"), HasSubstr("priority is 10, expected 0 to 9"));
  EXPECT_THAT(refusal_of("tenant=a tokens-per-minute=0"), HasSubstr("expected 1 to"));
  EXPECT_THAT(refusal_of("tenant=a running=0"), HasSubstr("running is 0, expected 1 to"));
  EXPECT_THAT(refusal_of("tenant=a b jobs=1"), HasSubstr("expected jobs"));
  EXPECT_THAT(refusal_of("tenant= jobs=1"), HasSubstr("line 1"));
  EXPECT_THAT(refusal_of("tenant=a/b jobs=1"), HasSubstr("line 1"));
  EXPECT_THAT(refusal_of("tenant=a\ntenant=a"), HasSubstr("line 2: a stands twice"));
  EXPECT_THAT(refusal_of("tenant=*\ntenant=*"), HasSubstr("line 2: tenant=* stands twice"));
  EXPECT_THAT(refusal_of("tenant\ntenant"), HasSubstr("the tenant without a name stands twice"));
}

TEST(TenantQuotas, BoundsTheNumberOfTenants) {
  std::string text;
  for (size_t i = 0; i <= kTenantQuotasMax; ++i) text += "tenant=t" + std::to_string(i) + "\n";
  EXPECT_THAT(refusal_of(text), HasSubstr("more than 10000 tenants"));
}

class QuotaFileTest : public ::testing::Test {
 protected:
  QuotaFileTest() {
    std::string name = testing::TempDir() + "quota-file-XXXXXX";
    folder_ = mkdtemp(name.data());
    path = folder_ + "/quotas";
  }
  ~QuotaFileTest() override { std::filesystem::remove_all(folder_); }
  // Replaces the file like a program, so that its stamp differs whatever the clock of the file system says.
  void write(const std::string& text) {
    const std::string next = path + "." + std::to_string(++written_);
    std::ofstream(next) << text;
    chmod(next.c_str(), 0644);
    std::filesystem::rename(next, path);
  }

  std::string path;

 private:
  std::string folder_;
  int written_ = 0;
};

TEST_F(QuotaFileTest, IsReadAgainWhenItChanges) {
  write("tenant=a jobs=1\n");
  const auto file = QuotaFile::load(path).value();
  EXPECT_FALSE(file->refresh());
  EXPECT_EQ(file->quotas()->of("a").jobs, 1);
  write("tenant=a jobs=2\n");
  EXPECT_TRUE(file->refresh());
  EXPECT_EQ(file->quotas()->of("a").jobs, 2);
  EXPECT_FALSE(file->refresh());
}

TEST_F(QuotaFileTest, AFileWithAFaultChangesNothing) {
  write("tenant=a jobs=1\n");
  const auto file = QuotaFile::load(path).value();
  write("tenant=a jobs=many\n");
  EXPECT_FALSE(file->refresh());
  EXPECT_EQ(file->quotas()->of("a").jobs, 1);
  std::filesystem::remove(path);
  EXPECT_FALSE(file->refresh());
  EXPECT_EQ(file->quotas()->of("a").jobs, 1);
  write("tenant=a jobs=3\n");
  EXPECT_TRUE(file->refresh());
  EXPECT_EQ(file->quotas()->of("a").jobs, 3);
}

TEST_F(QuotaFileTest, IsNotTakenFromEverybody) {
  EXPECT_FALSE(QuotaFile::load(path).ok());
  write("tenant=a jobs=1\n");
  chmod(path.c_str(), 0666);
  EXPECT_THAT(QuotaFile::load(path).refusal().message, HasSubstr("chmod go-w"));
  write("tenant=a jobs=x\n");
  EXPECT_THAT(QuotaFile::load(path).refusal().message, HasSubstr("line 1"));
}

}  // namespace
}  // namespace tenant_quotas_test
}  // namespace optserve::keys
