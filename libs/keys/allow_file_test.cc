#include "keys/allow_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "keys/key_files.h"

namespace optserve::keys {
namespace allow_file_test {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

class AllowFile : public testing::Test {
 protected:
  AllowFile() {
    std::string name = testing::TempDir() + "allow-file-XXXXXX";
    folder_ = mkdtemp(name.data());
    path = folder_ + "/allowed_keys";
  }
  ~AllowFile() override { std::filesystem::remove_all(folder_); }
  static AllowedKey key(int number, const std::string& name, const std::string& rights = "client=a") {
    PublicKey bytes;
    bytes.bytes[0] = static_cast<uint8_t>(number);
    return parse_allowed_key(bytes.text() + " name=" + name + " " + rights).value();
  }
  std::string text() const { return read_key_file(path, Privacy::kTrusted).value(); }

  std::string path;

 private:
  std::string folder_;
};

TEST_F(AllowFile, IsMadeForItsOwnerAndKeepsCommentsAndOrder) {
  ASSERT_TRUE(allow_in_file(path, key(1, "a")).ok());
  struct stat about {};
  ASSERT_EQ(stat(path.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0600u);
  ASSERT_TRUE(
      replace_file(path, "# first\n" + allow_line(key(1, "a")) + "\n\n# second\n" + allow_line(key(2, "b"))).ok());
  ASSERT_TRUE(allow_in_file(path, key(3, "c")).ok());
  EXPECT_EQ(text(), "# first\n" + allow_line(key(1, "a")) + "\n\n# second\n" + allow_line(key(2, "b")) + "\n" +
                        allow_line(key(3, "c")) + "\n");
}

TEST_F(AllowFile, AllowingAgainChangesTheRights) {
  ASSERT_TRUE(allow_in_file(path, key(1, "a")).ok());
  ASSERT_TRUE(allow_in_file(path, key(1, "a", "operator")).ok());
  const auto list = read_allow_file(path);
  ASSERT_THAT(list.value().keys(), SizeIs(1));
  EXPECT_TRUE(list.value().keys()[0].is_operator);
}

TEST_F(AllowFile, RevokesAKeyOrAName) {
  for (int i = 1; i <= 4; ++i) {
    ASSERT_TRUE(allow_in_file(path, key(i, i <= 2 ? "twice" : "c" + std::to_string(i))).ok());
  }
  EXPECT_THAT(revoke_in_file(path, "twice").value(), SizeIs(2));
  EXPECT_THAT(revoke_in_file(path, key(3, "c3").key.text()).value(), SizeIs(1));
  EXPECT_THAT(read_allow_file(path).value().keys(), SizeIs(1));
  EXPECT_EQ(revoke_in_file(path, "twice").refusal().code, ErrorCode::kNotFound);
  EXPECT_EQ(revoke_in_file(path + "2", "twice").refusal().code, ErrorCode::kNotFound);
}

TEST_F(AllowFile, AFileWithAFaultIsLeftAlone) {
  ASSERT_TRUE(replace_file(path, "nonsense\n").ok());
  EXPECT_THAT(allow_in_file(path, key(1, "a")).refusal().message, HasSubstr("line 1"));
  EXPECT_FALSE(revoke_in_file(path, "a").ok());
  EXPECT_EQ(text(), "nonsense\n");
}

}  // namespace
}  // namespace allow_file_test
}  // namespace optserve::keys
