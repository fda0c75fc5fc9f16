#include "cli/doctor/preflight.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "support/temporary_folder.h"
#include "support/tiny_model.h"

namespace optserve::cli {
namespace preflight_test {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

class Preflight : public ::testing::Test {
 protected:
  std::string missing(const std::string& name) {
    const auto found = missing_of_model("opt=" + folder_ / name, 2);
    return found.ok() ? found.value() : "refused: " + found.refusal().message;
  }
  test_support::TemporaryFolder folder_;
};

TEST_F(Preflight, NamesWhatIsMissingAndWhatIsThereInstead) {
  EXPECT_THAT(missing("opt-1"), HasSubstr("opt-1 has no manifest.json: it is not converted; "));
  EXPECT_THAT(missing("opt-1"), HasSubstr("is empty"));
  fs::create_directories(folder_ / "opt-2");
  EXPECT_THAT(missing("opt-1"), HasSubstr("holds opt-2"));
  fs::create_directories(folder_ / ".opt-1.staging");
  EXPECT_THAT(missing("opt-1"), HasSubstr("it is being converted"));
  EXPECT_THAT(missing("no/opt"), HasSubstr("No such file or directory"));
  EXPECT_FALSE(missing_of_model("opt=", 1).ok());
}

TEST_F(Preflight, IsContentWithACheckpointThatTheGroupCanShare) {
  test_support::write_random_checkpoint(folder_ / "opt", test_support::tiny_configs().front(), 1, DType::kF16, 2);
  EXPECT_EQ(missing("opt"), "");
  EXPECT_EQ(missing_of_model(folder_ / "opt", 1).value(), "") << "without a name";
  EXPECT_FALSE(missing_of_model(folder_ / "opt", 4).ok())
      << "two shards do for no group of four, however long one waits";
}

TEST_F(Preflight, WaitsForACheckpointThatIsStillCopied) {
  test_support::write_random_checkpoint(folder_ / "opt", test_support::tiny_configs().front(), 1, DType::kF16, 2);
  for (const auto& entry : fs::directory_iterator(folder_ / "opt")) {
    if (entry.path().extension() == ".safetensors") fs::resize_file(entry.path(), fs::file_size(entry.path()) / 2);
  }
  EXPECT_THAT(missing("opt"), HasSubstr("is not complete"));
}

TEST(SharedMemory, IsComparedWithWhatIsWanted) {
  EXPECT_TRUE(check_shared_memory("/", 1).ok());
  const Status too_small = check_shared_memory("/", int64_t{1} << 40);
  ASSERT_FALSE(too_small.ok());
  EXPECT_THAT(too_small.refusal().message, HasSubstr("emptyDir of medium Memory"));
  EXPECT_FALSE(check_shared_memory("/no/such/folder", 1).ok());
  EXPECT_TRUE(check_shared_memory("/no/such/folder", 0).ok());
}

}  // namespace preflight_test
}  // namespace optserve::cli
