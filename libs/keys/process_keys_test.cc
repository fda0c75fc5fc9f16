#include "keys/process_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "keys/key_files.h"

namespace optserve::keys {
namespace process_keys_test {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Files {
  Files() {
    std::string name = testing::TempDir() + "process-keys-XXXXXX";
    folder = mkdtemp(name.data());
  }
  ~Files() { std::filesystem::remove_all(folder); }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;
  std::string write(const std::string& name, const std::string& text) const {
    std::string path = folder + "/" + name;
    EXPECT_TRUE(replace_file(path, text).ok());
    return path;
  }
  std::string folder;
};

std::string line(const SecretKey& key, const std::string& rights) {
  return key.public_key().text() + " name=x " + rights + "\n";
}

TEST(ClientKeys, AreReadAgainWhenTheirFileChanges) {
  const Files files;
  const SecretKey first = new_secret_key(), second = new_secret_key(), server = new_secret_key();
  const std::string path = files.write("own", first.text());
  const auto keys = ClientKeys::load(path, {server.public_key().text()});
  ASSERT_TRUE(keys.ok()) << keys.refusal().message;
  EXPECT_EQ(keys.value()->own().public_key(), first.public_key());
  files.write("own", second.text());
  EXPECT_EQ(keys.value()->own().public_key(), second.public_key());
  files.write("own", "nonsense");
  EXPECT_EQ(keys.value()->own().public_key(), second.public_key());
  std::filesystem::remove(path);
  EXPECT_EQ(keys.value()->own().public_key(), second.public_key());
}

TEST(ClientKeys, TakeKeysAndFilesOfKeys) {
  const Files files;
  const SecretKey own = new_secret_key(), a = new_secret_key(), b = new_secret_key();
  const std::string path = files.write("servers", a.public_key().text() + "\n" + b.public_key().text() + "\n");
  const auto keys = ClientKeys::load(own.text(), {path, own.public_key().text()});
  ASSERT_TRUE(keys.ok()) << keys.refusal().message;
  EXPECT_EQ(keys.value()->servers(), (std::vector<PublicKey>{a.public_key(), b.public_key(), own.public_key()}));
  EXPECT_THAT(ClientKeys::load(own.text(), {}).refusal().message, HasSubstr("server-key"));
  EXPECT_THAT(ClientKeys::load(own.text(), {a.text()}).refusal().message, HasSubstr("this is a secret key"));
  EXPECT_THAT(ClientKeys::load(files.folder + "/none", {path}).refusal().message, HasSubstr("secret-key"));
  EXPECT_THAT(ClientKeys::load(own.text() + "0", {path}).refusal().message, Not(HasSubstr(own.text().substr(11, 16))));
}

TEST(ServerKeys, TheListIsReadAgainAndAFaultChangesNothing) {
  const Files files;
  const SecretKey own = new_secret_key(), a = new_secret_key(), b = new_secret_key();
  const std::string path = files.write("allowed", line(a, "client=a"));
  const auto loaded = ServerKeys::load(own.text(), path, "");
  ASSERT_TRUE(loaded.ok()) << loaded.refusal().message;
  ServerKeys& keys = *loaded.value();
  EXPECT_NE(keys.allowed().find(a.public_key()), nullptr);
  EXPECT_FALSE(keys.refresh());
  files.write("allowed", line(b, "client=a"));
  EXPECT_TRUE(keys.refresh());
  EXPECT_EQ(keys.allowed().find(a.public_key()), nullptr);
  EXPECT_NE(keys.allowed().find(b.public_key()), nullptr);
  EXPECT_NE(keys.allowed_before().find(a.public_key()), nullptr);
  EXPECT_FALSE(keys.refresh());
  files.write("allowed", line(b, "client=a") + "nonsense\n");
  EXPECT_FALSE(keys.refresh());
  std::filesystem::remove(path);
  EXPECT_FALSE(keys.refresh());
  EXPECT_NE(keys.allowed().find(b.public_key()), nullptr);
}

TEST(ServerKeys, LinesOfTheEnvironmentCountToo) {
  const Files files;
  const SecretKey own = new_secret_key(), a = new_secret_key(), b = new_secret_key();
  const std::string path = files.write("allowed", line(a, "client=a"));
  const auto both = ServerKeys::load(own.text(), path, line(b, "operator"));
  ASSERT_TRUE(both.ok());
  EXPECT_EQ(both.value()->allowed().keys().size(), 2u);
  EXPECT_THAT(ServerKeys::load(own.text(), path, line(a, "operator")).refusal().message, HasSubstr("twice"));
  EXPECT_THAT(ServerKeys::load(own.text(), "", "").refusal().message, HasSubstr("optserve keys allow"));
  EXPECT_THAT(ServerKeys::load(own.text(), "", "\nx").refusal().message, HasSubstr("allowed-key-lines: line 2"));
  chmod(path.c_str(), 0666);
  EXPECT_THAT(ServerKeys::load(own.text(), path, "").refusal().message, HasSubstr("chmod go-w"));
}

}  // namespace
}  // namespace process_keys_test
}  // namespace optserve::keys
