// `optserve convert` and what belongs to it, as processes on the model that ships.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "support/demo_model.h"
#include "support/processes.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {
namespace convert_command_test {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

ProgramOutput optserve(const std::vector<std::string>& arguments) { return run_program("optserve", arguments); }

TEST(ConvertCommand, VerifiesWhatItWroteAndWhatWasThere) {
  const TemporaryFolder folder;
  const std::string model = folder / "demo";
  const std::vector<std::string> command = {"convert", "--verify", demo_file(""), model, "--quantize", "int8"};
  const ProgramOutput first = optserve(command);
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_THAT(first.out, AllOf(HasSubstr("SHA-256 as the manifest has them"), HasSubstr("all within rounding"),
                               HasSubstr("the same best token in "), HasSubstr(model + ": verified\n")));
  EXPECT_THAT(first.out, Not(HasSubstr("written before")));

  const auto written = std::filesystem::last_write_time(model + "/manifest.json");
  const ProgramOutput again = optserve(command);
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_THAT(again.out, AllOf(HasSubstr("written before"), HasSubstr(": verified\n")));
  EXPECT_EQ(std::filesystem::last_write_time(model + "/manifest.json"), written);

  const ProgramOutput other = optserve({"convert", "--verify", demo_file(""), model, "--quantize", "fp8"});
  EXPECT_EQ(other.status, 1) << "another conversion's output is not this one's";
  EXPECT_THAT(other.err, HasSubstr("exists"));
  const ProgramOutput plain = optserve({"convert", demo_file(""), model, "--quantize", "int8"});
  EXPECT_EQ(plain.status, 0) << plain.err;
  EXPECT_THAT(plain.out, AllOf(HasSubstr("written before"), Not(HasSubstr(": verified"))));
}

TEST(ConvertCommand, DamageIsStatusOneAndNamed) {
  const TemporaryFolder folder;
  const std::string model = folder / "demo";
  const std::vector<std::string> command = {"convert", "--verify", demo_file(""), model, "--shards", "2"};
  ASSERT_EQ(optserve(command).status, 0);
  {
    std::fstream shard(model + "/shard-001-of-002.safetensors", std::ios::binary | std::ios::in | std::ios::out);
    shard.seekp(-3, std::ios::end);
    shard.put('\x7f');
  }
  const ProgramOutput ran = optserve(command);
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, AllOf(HasSubstr("optserve: files: "), HasSubstr("shard-001-of-002.safetensors: SHA-256 is"),
                             HasSubstr("optserve: weights: final_norm.bias in shard-001-of-002.safetensors: 1 of 256"),
                             HasSubstr("is not what its source says; do not use it")));
  EXPECT_THAT(ran.out, Not(HasSubstr(": verified")));
}

TEST(CalibrateCommand, WritesRangesOnceForSmoothing) {
  const TemporaryFolder folder;
  ASSERT_EQ(optserve({"convert", demo_file(""), folder / "demo"}).status, 0);
  const std::vector<std::string> command = {"calibrate", folder / "demo",   "--text",   demo_file("README.md"),
                                            "--output",  folder / "ranges", "--tokens", "100"};
  const ProgramOutput ran = optserve(command);
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("ranges: ranges of demo, 8 layers, over 100 tokens"));
  const std::string written = read_file(folder / "ranges");
  const ProgramOutput again = optserve(command);
  EXPECT_EQ(again.status, 1);
  EXPECT_THAT(again.err, HasSubstr("exists already; nothing is replaced"));
  EXPECT_EQ(read_file(folder / "ranges"), written);
  EXPECT_FALSE(std::filesystem::exists(folder / "ranges.partial"));

  const std::vector<std::string> smooth = {"convert",  "--verify",        demo_file(""), folder / "smoothed",
                                           "--smooth", folder / "ranges", "--quantize",  "int8"};
  const ProgramOutput smoothed = optserve(smooth);
  EXPECT_EQ(smoothed.status, 0) << smoothed.err;
  EXPECT_THAT(smoothed.out, AllOf(HasSubstr("all within rounding"), HasSubstr("smoothed: verified\n")));
  EXPECT_THAT(optserve({"inspect", folder / "smoothed"}).out, HasSubstr("smoothing       {\"alpha\":0.5,"));
  EXPECT_THAT(optserve(smooth).out, HasSubstr("written before"));
  const ProgramOutput unsmoothed =
      optserve({"convert", "--verify", demo_file(""), folder / "smoothed", "--quantize", "int8"});
  EXPECT_EQ(unsmoothed.status, 1);
  EXPECT_THAT(unsmoothed.err, HasSubstr("exists"));

  const ProgramOutput no_text = optserve({"calibrate", folder / "demo", "--output", folder / "other"});
  EXPECT_EQ(no_text.status, 1);
  EXPECT_THAT(no_text.err, HasSubstr("--text and --output are needed"));
}

}  // namespace convert_command_test
}  // namespace optserve::test_support
