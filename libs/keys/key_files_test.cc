#include "keys/key_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

namespace optserve::keys {
namespace key_files_test {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Folder {
  Folder() {
    std::string name = testing::TempDir() + "keys-XXXXXX";
    path = mkdtemp(name.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string file(const std::string& name, const std::string& text, mode_t mode) const {
    const std::string full = path + "/" + name;
    std::ofstream(full) << text;
    chmod(full.c_str(), mode);
    return full;
  }
  std::string path;
};

TEST(KeyPairs, DifferAndComeBackFromTheirText) {
  std::set<std::string> seen;
  for (int i = 0; i < 32; ++i) {
    const SecretKey key = new_secret_key();
    EXPECT_TRUE(seen.insert(key.text()).second);
    const auto again = parse_secret_key(key.text());
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again.value().public_key(), key.public_key());
    EXPECT_EQ(parse_public_key(key.public_key().text()).value(), key.public_key());
  }
}

// The pair of keys in the manual of zmq_curve.
TEST(KeyPairs, ThePublicKeyIsThatOfCurve) {
  const auto secret = parse_secret_key("opt-secret-8e0bdd697628b91d8f245587ee95c5b04d48963f79259877b49cd9063aead3b7");
  ASSERT_TRUE(secret.ok());
  EXPECT_EQ(secret.value().public_key().text(),
            "opt-public-54fcba24e93249969316fb617c872bb0c1d1ff14800427c594cbfacf1bc2d652");
}

TEST(KeyPairs, OneKindIsNotTakenForTheOther) {
  const SecretKey key = new_secret_key();
  EXPECT_THAT(parse_public_key(key.text()).refusal().message, HasSubstr("this is a secret key"));
  EXPECT_THAT(parse_secret_key(key.public_key().text()).refusal().message, HasSubstr("this is a public key"));
  EXPECT_THAT(parse_public_key(key.text()).refusal().message, Not(HasSubstr(key.text().substr(11, 16))));
  for (const std::string& wrong : {std::string(), key.text() + "0", key.text().substr(0, 74), " " + key.text(),
                                   std::string("opt-secret-") + std::string(64, 'G')}) {
    EXPECT_FALSE(parse_secret_key(wrong).ok()) << wrong.size();
  }
}

TEST(SecretKeyFile, OthersMayNotReadIt) {
  const Folder folder;
  const std::string text = "# mine\n" + new_secret_key().text() + "\n";
  for (const mode_t mode : {0644, 0604, 0620, 0602, 0666, 0660}) {
    const std::string path = folder.file("key", text, mode);
    const auto key = read_secret_key_file(path);
    ASSERT_FALSE(key.ok()) << std::oct << mode;
    EXPECT_THAT(key.refusal().message, HasSubstr("chmod 600 " + path));
  }
  for (const mode_t mode : {0600, 0400, 0700}) {
    EXPECT_TRUE(read_secret_key_file(folder.file("key", text, mode)).ok()) << std::oct << mode;
    chmod((folder.path + "/key").c_str(), 0600);
  }
}

// What Kubernetes mounts for a process that is not root belongs to root and to the pod's group.
TEST(SecretKeyFile, TheGroupMayReadWhatRootSharesWithIt) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can make a file of root";
  const Folder folder;
  chmod(folder.path.c_str(), 0755);
  const std::string path = folder.file("key", new_secret_key().text() + "\n", 0440);
  ASSERT_EQ(chown(path.c_str(), 0, 65'534), 0);
  EXPECT_FALSE(read_secret_key_file(path).ok()) << "root has no group that shares with it";
  const uid_t before = geteuid();
  const gid_t group_before = getegid();
  ASSERT_EQ(setegid(65'534), 0);
  ASSERT_EQ(seteuid(65'534), 0);
  const auto key = read_secret_key_file(path);
  ASSERT_EQ(seteuid(before), 0);
  ASSERT_EQ(setegid(group_before), 0);
  EXPECT_TRUE(key.ok()) << key.refusal().message;
}

TEST(SecretKeyFile, HoldsOneKey) {
  const std::string a = new_secret_key().text(), b = new_secret_key().text();
  EXPECT_TRUE(parse_secret_key_file("\n# c\n  " + a + " \r\n").ok());
  EXPECT_THAT(parse_secret_key_file(a + "\n" + b).refusal().message, HasSubstr("line 2: a second key"));
  EXPECT_THAT(parse_secret_key_file("# nothing\n").refusal().message, HasSubstr("no key"));
  EXPECT_THAT(parse_secret_key_file("\n" + a + b).refusal().message, HasSubstr("line 2: "));
  EXPECT_THAT(parse_secret_key_file("\n" + a + b).refusal().message, Not(HasSubstr(a.substr(11, 16))));
}

TEST(PublicKeyFile, HoldsSeveralAndMayBeReadByAll) {
  const Folder folder;
  const PublicKey a = new_secret_key().public_key(), b = new_secret_key().public_key();
  const auto keys = read_public_key_file(folder.file("public", a.text() + "\n# new\n" + b.text() + "\n", 0644));
  ASSERT_TRUE(keys.ok());
  EXPECT_EQ(keys.value(), (std::vector<PublicKey>{a, b}));
  EXPECT_THAT(read_public_key_file(folder.file("public", a.text(), 0664)).refusal().message, HasSubstr("chmod go-w"));
}

TEST(KeyFiles, AreNoFoldersPipesOrHeaps) {
  const Folder folder;
  EXPECT_THAT(read_secret_key_file(folder.path).refusal().message, HasSubstr("regular file"));
  const std::string pipe = folder.path + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(read_secret_key_file(pipe).refusal().message, HasSubstr("regular file"));
  EXPECT_THAT(read_secret_key_file(folder.file("big", std::string(kKeyFileBytesMax + 1, '#'), 0600)).refusal().message,
              HasSubstr("more than"));
  EXPECT_THAT(read_secret_key_file(folder.path + "/none").refusal().message, HasSubstr("No such file"));
}

TEST(KeyFiles, NewOnesArePrivateAndNeverOverwrite) {
  const Folder folder;
  const std::string path = folder.path + "/new";
  const mode_t mask = umask(0);
  ASSERT_TRUE(write_new_file(path, "a", 0600).ok());
  umask(mask);
  struct stat about {};
  ASSERT_EQ(stat(path.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  EXPECT_THAT(write_new_file(path, "b", 0600).refusal().message, HasSubstr("not overwritten"));
  EXPECT_EQ(read_key_file(path, Privacy::kSecret).value(), "a");
  const std::string link = folder.path + "/link";
  ASSERT_EQ(symlink((folder.path + "/elsewhere").c_str(), link.c_str()), 0);
  EXPECT_FALSE(write_new_file(link, "b", 0600).ok());
  ASSERT_TRUE(replace_file(path, "c").ok());
  EXPECT_EQ(read_key_file(path, Privacy::kSecret).value(), "c");
}

}  // namespace
}  // namespace key_files_test
}  // namespace optserve::keys
