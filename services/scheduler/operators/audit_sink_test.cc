#include "scheduler/operators/audit_sink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace optserve::scheduler::testing {
namespace audit_sink_test {
namespace {

using ::testing::HasSubstr;

std::string key_text(int number) {
  keys::PublicKey key{};
  key.bytes[0] = static_cast<uint8_t>(number);
  return key.text();
}

keys::AllowList list_of(const std::string& text) { return keys::parse_allow_list(text).value(); }

class AuditSinkTest : public ::testing::Test {
 protected:
  AuditSinkTest() {
    std::string name = (std::filesystem::temp_directory_path() / "optserve-sink-XXXXXX").string();
    check(::mkdtemp(name.data()) != nullptr, "mkdtemp");
    folder_ = name;
  }
  ~AuditSinkTest() override { std::filesystem::remove_all(folder_); }
  std::string file(const char* name) const { return (folder_ / name).string(); }
  // Under another inode, as one that is replaced by renaming.
  void put(const char* name, const std::string& text) const {
    std::ofstream(file("next")) << text;
    std::filesystem::permissions(file("next"), std::filesystem::perms(0600));
    std::filesystem::rename(file("next"), file(name));
  }
  std::vector<audit::Record> records() const { return audit::read_logs({file("audit")}, 100).records; }

  std::filesystem::path folder_;
  FakeClock clock_;
  metrics::Registry registry_;
};

TEST_F(AuditSinkTest, SaysWhichKeysAndQuotasAreOthersAndWhatWasNotRead) {
  const std::string ops = key_text(1) + " name=ops operator\n", shop = key_text(2) + " name=shop client=shop\n";
  put("keys", ops);
  put("quotas", "tenant=shop jobs=1\n");
  const auto keys = keys::ServerKeys::load(keys::new_secret_key().text(), file("keys"), "").value();
  const auto quotas = keys::QuotaFile::load(file("quotas")).value();
  {
    AuditSink sink(file("audit"), "tcp://a:5555", clock_, registry_);
    sink.watch(*keys);
    sink.watch(*quotas);
    put("keys", ops + shop);
    EXPECT_TRUE(keys->refresh());
    EXPECT_FALSE(keys->refresh());  // and nothing more is written
    put("keys", "nonsense\n");
    EXPECT_FALSE(keys->refresh());
    put("quotas", "tenant=shop jobs=2\ntenant=forum jobs=1\n");
    EXPECT_TRUE(quotas->refresh());
    put("quotas", "tenant=shop jobs=many\n");
    EXPECT_FALSE(quotas->refresh());
  }
  const auto found = records();
  ASSERT_EQ(found.size(), 4u);
  for (const audit::Record& record : found) {
    EXPECT_EQ(record.action, "change");
    EXPECT_EQ(record.scheduler, "tcp://a:5555");
    EXPECT_EQ(record.wall_ms, clock_.wall_ms());
  }
  EXPECT_EQ(found[3].object, "allowed keys");
  EXPECT_EQ(found[3].reason, "added shop");
  EXPECT_EQ(found[2].outcome, audit::Outcome::kRefused);
  EXPECT_THAT(found[2].reason, HasSubstr("line 1"));
  EXPECT_EQ(found[1].object, "tenant quotas");
  EXPECT_EQ(found[1].reason, "added forum; changed shop");
  EXPECT_EQ(found[0].outcome, audit::Outcome::kRefused);
}

TEST_F(AuditSinkTest, ChangesOfKeysNameThoseWhoBecameOperators) {
  const auto before = list_of(key_text(1) + " name=a client=a\n" + key_text(2) + " name=b client=b\n");
  const auto after = list_of(key_text(1) + " name=a client=a operator\n" + key_text(3) + " name=c operator\n");
  EXPECT_EQ(changes_of(before, after), "added c (operator); removed b; changed a (operator now)");
  EXPECT_EQ(changes_of(before, before), "nothing changed");
  std::string many;
  for (int i = 1; i <= 20; ++i) many += key_text(i) + " name=k" + std::to_string(i) + " client=a\n";
  EXPECT_EQ(changes_of(keys::AllowList(), list_of(many)), "added k1, k2, k3, k4, k5, k6, k7, k8 and 12 more");
}

TEST_F(AuditSinkTest, AStartShowsWhetherTheFilesAreThoseOfTheLastOne) {
  const std::string secret = keys::new_secret_key().text();
  const auto text_of = [&](const std::string& list) {
    put("keys", list);
    return state_text(7, keys::ServerKeys::load(secret, file("keys"), "").value().get(), nullptr);
  };
  const std::string a = key_text(1) + " name=a client=a\n", b = key_text(2) + " name=b client=b\n";
  EXPECT_THAT(text_of(a + b), HasSubstr("term 7; allowed keys 2, digest "));
  EXPECT_EQ(text_of(a + b), text_of(b + "# turned round\n" + a));
  EXPECT_NE(text_of(a + b), text_of(a + key_text(2) + " name=b client=b operator\n"));
  EXPECT_EQ(state_text(1, nullptr, nullptr), "term 1; no keys");
}

TEST_F(AuditSinkTest, WithoutAFileNothingIsWrittenAndWithOneMetricsCount) {
  { AuditSink(std::string(), "tcp://a:5555", clock_, registry_).note("start", "scheduler"); }
  EXPECT_THAT(registry_.text(), ::testing::Not(HasSubstr("optserve_audit")));
  { AuditSink(file("audit"), "tcp://a:5555", clock_, registry_).note("start", "scheduler"); }
  EXPECT_THAT(registry_.text(), HasSubstr("optserve_audit_records_total 1\n"));
  EXPECT_THAT(registry_.text(), HasSubstr("optserve_audit_lost_total 0\n"));
  { AuditSink(file("missing/audit"), "tcp://a:5555", clock_, registry_).note("start", "scheduler"); }
  EXPECT_THAT(registry_.text(), HasSubstr("optserve_audit_lost_total 1\n"));
}

}  // namespace
}  // namespace audit_sink_test
}  // namespace optserve::scheduler::testing
