#include "gateway/access/key_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "base/log.h"
#include "base/program.h"
#include "support/temporary_folder.h"

namespace optserve::gateway {
namespace key_store_test {

using ::testing::HasSubstr;

class KeyStoreTest : public ::testing::Test {
 protected:
  static std::string line(const std::string& id) {
    ApiKey key{.id = id, .tenant = "t", .may_submit = true};
    EXPECT_TRUE(set_secret(key, random_api_key()).ok());
    return api_key_line(key) + "\n";
  }
  void write(const std::string& text, mode_t mode = 0600) const {
    const std::string fresh = path + ".new";
    std::ofstream(fresh) << text;
    ASSERT_EQ(chmod(fresh.c_str(), mode), 0);
    std::filesystem::rename(fresh, path);
  }
  static std::string ids(const KeyStore& store) {
    std::string all;
    for (const ApiKey& key : store.keys()) all += key.id + " ";
    return all;
  }
  std::string fault(const std::string& lines = "") const {
    try {
      const KeyStore store(path, lines);
    } catch (const ConfigurationError& error) {
      return error.what();
    }
    return "";
  }

  test_support::TemporaryFolder folder;
  const std::string path = folder / "keys.jsonl";
};

TEST_F(KeyStoreTest, AChangedFileIsReadAgain) {
  write(line("a"));
  KeyStore store(path, line("fixed"));
  EXPECT_EQ(ids(store), "a fixed ");
  EXPECT_FALSE(store.refresh());
  write(line("a") + line("b"));
  EXPECT_TRUE(store.refresh());
  EXPECT_EQ(ids(store), "a b fixed ");
  EXPECT_FALSE(store.refresh());
  write("# nobody\n");
  EXPECT_TRUE(store.refresh());
  EXPECT_EQ(ids(store), "fixed ");
}

TEST_F(KeyStoreTest, AFaultyFileChangesNothingAndIsToldOnce) {
  const std::string good = line("a");
  write(good);
  KeyStore store(path, "");
  ::testing::internal::CaptureStderr();
  init_logging("test", "info", LogFormat::kText);
  write("{\"id\":");
  EXPECT_FALSE(store.refresh());
  EXPECT_FALSE(store.refresh());
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("keys_not_read"));
  EXPECT_EQ(log.find("keys_not_read"), log.rfind("keys_not_read"));
  EXPECT_EQ(ids(store), "a ");
  write(good + line("b"), 0644);
  EXPECT_FALSE(store.refresh());
  std::filesystem::remove(path);
  EXPECT_FALSE(store.refresh());
  EXPECT_EQ(ids(store), "a ");
  write(line("c"));
  EXPECT_TRUE(store.refresh());
  EXPECT_EQ(ids(store), "c ");
}

TEST_F(KeyStoreTest, AFileThatOthersCanReadIsRefused) {
  write(line("a"), 0640);
  EXPECT_EQ(fault(), "");
  for (const mode_t mode : {0604, 0602}) {
    write(line("a"), mode);
    EXPECT_THAT(fault(), HasSubstr("expected mode 0600 or 0640"));
  }
}

TEST_F(KeyStoreTest, ABadStartIsAnError) {
  EXPECT_THAT(fault(), HasSubstr("No such file"));
  write("nonsense\n");
  EXPECT_THAT(fault(), HasSubstr("line 1: "));
  write("# none\n");
  EXPECT_THAT(fault(), HasSubstr("new-key"));
  const std::string same = line("a");
  write(same);
  EXPECT_THAT(fault(same), HasSubstr("the environment has a key of the id a too"));
  EXPECT_THAT(fault("nonsense"), HasSubstr("key-lines: line 1: "));
  write(std::string(kApiKeyFileBytesMax + 1, '#'));
  EXPECT_THAT(fault(), HasSubstr("more than"));
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  EXPECT_THAT(fault(), HasSubstr("expected a regular file"));
}

TEST_F(KeyStoreTest, WithoutFileAndLinesThereAreNoKeys) { EXPECT_FALSE(KeyStore("", "").has_keys()); }

}  // namespace key_store_test
}  // namespace optserve::gateway
