#include "converter/service/path_guard.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace optserve::converter {
namespace path_guard_test {

namespace fs = std::filesystem;

// root/model/part.pt, root-other/secret.pt beside it.
class PathGuardTest : public ::testing::Test {
 protected:
  PathGuardTest()
      : base_(fs::canonical(::testing::TempDir()) / ("path_guard_" + std::to_string(getpid()))),
        root_(base_ / "root"),
        other_(base_ / "root-other") {
    fs::create_directories(root_ / "model");
    fs::create_directories(other_);
    std::ofstream(root_ / "model" / "part.pt") << "x";
    std::ofstream(other_ / "secret.pt") << "x";
  }
  ~PathGuardTest() override { fs::remove_all(base_); }

  // "source -> destination", or the refusal.
  std::string resolve(const std::string& source, const std::string& destination) const {
    const auto spec = PathGuard({root_.string()}).resolve({source, destination, "keep", 2});
    return spec.ok() ? spec.value().source + " -> " + spec.value().destination : spec.refusal().message;
  }
  std::string inside(const std::string& path) const { return (root_ / path).string(); }
  bool refuses(const std::string& source, const std::string& destination) const {
    return resolve(source, destination).find("leads outside the folders of this converter") != std::string::npos;
  }

  fs::path base_, root_, other_;
};

TEST_F(PathGuardTest, AcceptsWhatLiesBelowTheRoot) {
  const std::string expected = inside("model") + " -> " + inside("out");
  EXPECT_EQ(resolve(inside("model"), inside("out")), expected);
  EXPECT_EQ(resolve("model", "out"), expected);
  EXPECT_EQ(resolve("model/../model/.", "out/"), expected);
  EXPECT_EQ(resolve("model/part.pt", "out"), inside("model/part.pt") + " -> " + inside("out"));
  EXPECT_EQ(resolve("model/part*.pt", "out"), inside("model/part*.pt") + " -> " + inside("out"));
}

TEST_F(PathGuardTest, RefusesWhatLiesElsewhere) {
  EXPECT_TRUE(refuses(other_.string(), "out")) << resolve(other_.string(), "out");
  EXPECT_TRUE(refuses("../root-other/secret.pt", "out"));
  EXPECT_TRUE(refuses("../root-other/*.pt", "out"));
  EXPECT_TRUE(refuses("/", "out"));
  EXPECT_TRUE(refuses("model", "../out"));
  EXPECT_TRUE(refuses("model", (other_ / "out").string()));
  EXPECT_TRUE(refuses("model", ".."));
  EXPECT_TRUE(refuses("model", "/"));
}

TEST_F(PathGuardTest, FollowsSymbolicLinksBeforeItDecides) {
  fs::create_symlink(other_, root_ / "way_out");
  EXPECT_TRUE(refuses("way_out", "out"));
  EXPECT_TRUE(refuses("way_out/secret.pt", "out"));
  EXPECT_TRUE(refuses("model", "way_out/out"));
  fs::create_symlink(root_ / "model", root_ / "alias");
  EXPECT_EQ(resolve("alias", "out"), inside("model") + " -> " + inside("out"));
  fs::create_symlink(other_ / "secret.pt", root_ / "model" / "part2.pt");
  EXPECT_TRUE(refuses("model", "out"));
  EXPECT_TRUE(refuses("model/part*.pt", "out"));
}

TEST_F(PathGuardTest, NamesWhatDoesNotExist) {
  EXPECT_EQ(resolve("absent", "out"), "source: 'absent': No such file or directory");
  EXPECT_EQ(resolve("model", "absent/out"), inside("model") + " -> " + inside("absent/out"));  // will be created
  EXPECT_TRUE(refuses("model", "absent/../../out"));
}

TEST_F(PathGuardTest, WithoutARootEverythingIsRefused) {
  const auto spec = PathGuard({}).resolve({inside("model"), inside("out"), "keep", 0});
  ASSERT_FALSE(spec.ok());
  EXPECT_NE(spec.refusal().message.find("started without --root"), std::string::npos);
  EXPECT_THROW(PathGuard({inside("absent")}), Error);
  EXPECT_THROW(PathGuard({inside("model/part.pt")}), Error);
}

}  // namespace path_guard_test
}  // namespace optserve::converter
