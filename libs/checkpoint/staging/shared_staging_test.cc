// Several members of one staging folder are objects of one process here: a lock belongs to an open file, not to a
// process.
#include "checkpoint/staging/shared_staging.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/ids.h"

namespace optserve::checkpoint {
namespace shared_staging_test {

namespace fs = std::filesystem;

class SharedStagingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("optserve-shared-staging-" + Id128::random().hex());
    fs::create_directory(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string target() const { return (root_ / "model").string(); }
  fs::path folder() const { return root_ / ".model.staging"; }
  Result<std::unique_ptr<SharedStaging>> try_join(const std::string& record = R"({"dtype":"F16"})",
                                                  bool restart = false) const {
    return SharedStaging::join({target(), record, 3, restart});
  }
  std::unique_ptr<SharedStaging> join(bool restart = false) const {
    auto joined = try_join(R"({"dtype":"F16"})", restart);
    if (!joined.ok()) throw Error(joined.refusal().message);
    return std::move(joined).value();
  }
  static std::vector<int> numbers(const std::vector<ShardClaim>& claims) {
    std::vector<int> found;
    for (const ShardClaim& claim : claims) found.push_back(claim.shard());
    return found;
  }
  static void write(SharedStaging& staging, const ShardClaim& claim) {
    OutputFile part = staging.new_part(claim);
    part.append(std::as_bytes(std::span("weights", 7)));
    staging.finish(claim, part, {static_cast<uint64_t>(claim.shard()), {"warned"}});
  }
  // Leaves what a conversion leaves that ended after this many shards.
  void leave_shards(int count) const {
    const auto staging = join();
    for (const ShardClaim& claim : staging->claim(count)) write(*staging, claim);
  }
  std::vector<std::string> names_in(const fs::path& path) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path)) names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }

  fs::path root_;
};

TEST_F(SharedStagingTest, FoldersAboveTheTargetAreCreated) {
  const auto staging = SharedStaging::join({(root_ / "models/opt/model").string(), "{}", 1, false});
  ASSERT_TRUE(staging.ok()) << staging.refusal().message;
  EXPECT_TRUE(fs::is_directory(root_ / "models/opt"));
  std::ofstream(root_ / "file") << "x";
  const auto refused = SharedStaging::join({(root_ / "file/model").string(), "{}", 1, false});
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.refusal().message.find("file: cannot be created"), std::string::npos) << refused.refusal().message;
}

TEST_F(SharedStagingTest, EveryShardHasOneWriter) {
  const auto first = join();
  const auto second = join();
  auto claims = first->claim(2);
  EXPECT_EQ(numbers(claims), (std::vector{0, 1}));
  auto others = second->claim(2);
  EXPECT_EQ(numbers(others), (std::vector{2}));
  EXPECT_TRUE(first->claim(1).empty());
  write(*first, claims[0]);
  claims.clear();
  EXPECT_EQ(numbers(second->claim(3)), (std::vector{1}));  // 0 is finished, 2 is its own
}

TEST_F(SharedStagingTest, FinishedShardsOutliveTheirWriterAndTheRestDoesNot) {
  {
    const auto staging = join();
    const auto claims = staging->claim(2);
    write(*staging, claims[1]);
    OutputFile part = staging->new_part(claims[0]);
    part.append(std::as_bytes(std::span("half", 4)));
  }
  const auto next = join();
  EXPECT_EQ(next->finished(), 1);
  const auto record = next->records()[1];
  ASSERT_TRUE(record);
  EXPECT_EQ(record->bytes, 7u);
  EXPECT_EQ(record->notes, (ShardNotes{1, {"warned"}}));
  EXPECT_EQ(numbers(next->claim(3)), (std::vector{0, 2}));
  for (const std::string& name : names_in(folder())) EXPECT_EQ(name.find(".part-"), std::string::npos) << name;
}

TEST_F(SharedStagingTest, OthersSeeHowFarAShardIs) {
  const auto first = join();
  const auto second = join();
  const auto claims = first->claim(1);
  OutputFile part = first->new_part(claims[0]);
  const std::vector<std::byte> block(WriteBlock::kBytes);
  part.append(block);  // whole blocks are written at once, by another thread
  for (int tries = 0; second->bytes_of_others() == 0 && tries < 6000; ++tries) usleep(10'000);
  EXPECT_EQ(second->bytes_of_others(), block.size());
  EXPECT_EQ(first->bytes_of_others(), 0u);
}

TEST_F(SharedStagingTest, NothingStaysWhenNothingIsFinished) {
  {
    const auto staging = join();
    const auto claims = staging->claim(1);
    OutputFile part = staging->new_part(claims[0]);
    part.append(std::as_bytes(std::span("half", 4)));
  }
  EXPECT_TRUE(fs::is_empty(root_));
}

TEST_F(SharedStagingTest, WhoeverLeavesTakesNothingFromTheOthers) {
  auto first = join();
  auto second = join();
  const auto claims = second->claim(1);
  first->discard();
  first.reset();
  write(*second, claims[0]);
  EXPECT_EQ(second->finished(), 1);
  second->discard();
  second.reset();
  EXPECT_TRUE(fs::is_empty(root_));
}

TEST_F(SharedStagingTest, AnotherConversionIsRefusedAndNamesWhatDiffers) {
  leave_shards(1);
  const auto other = try_join(R"({"dtype":"BF16"})");
  ASSERT_FALSE(other.ok());
  const std::string& text = other.refusal().message;
  EXPECT_NE(text.find("1 finished shards of another conversion"), std::string::npos) << text;
  EXPECT_NE(text.find(R"(dtype (found "F16", expected "BF16"))"), std::string::npos) << text;
  EXPECT_NE(text.find("--restart"), std::string::npos) << text;
  EXPECT_EQ(join()->finished(), 1);
  ASSERT_TRUE(try_join(R"({"dtype":"BF16"})", true).ok());
  EXPECT_TRUE(fs::is_empty(root_));  // nothing of the first, and the second has finished nothing
}

TEST_F(SharedStagingTest, AnotherConversionThatFinishedNothingMakesRoomOnceItHasEnded) {
  {
    const auto staging = join();
    const auto other = try_join(R"({"dtype":"BF16"})");
    ASSERT_FALSE(other.ok());
    EXPECT_NE(other.refusal().message.find("another process converts there"), std::string::npos);
    EXPECT_TRUE(fs::exists(folder()));
    fs::copy(folder(), root_ / "copy", fs::copy_options::recursive);
  }
  fs::rename(root_ / "copy", folder());  // as a killed process leaves it
  EXPECT_TRUE(try_join(R"({"dtype":"BF16"})").ok());
}

TEST_F(SharedStagingTest, RestartRemovesWhatIsThereUnlessSomebodyWorksThere) {
  leave_shards(2);
  {
    const auto staging = join();
    const auto again = try_join(R"({"dtype":"F16"})", true);
    ASSERT_FALSE(again.ok());
    EXPECT_NE(again.refusal().message.find("another process converts there"), std::string::npos);
    EXPECT_EQ(staging->finished(), 2);
  }
  EXPECT_EQ(join(true)->finished(), 0);
}

TEST_F(SharedStagingTest, OnePublishesAndTheLastOneLeavesNothing) {
  auto first = join();
  auto second = join();
  for (const ShardClaim& claim : first->claim(3)) write(*first, claim);
  ASSERT_TRUE(first->publish({{"manifest.json", "{}"}}).ok());
  EXPECT_TRUE(second->is_published());
  EXPECT_TRUE(second->claim(3).empty());
  ASSERT_TRUE(second->publish({{"manifest.json", "not this one"}}).ok());
  first.reset();
  EXPECT_TRUE(fs::exists(folder()));
  second.reset();
  EXPECT_EQ(names_in(root_), (std::vector<std::string>{"model"}));
  EXPECT_EQ(names_in(target()),
            (std::vector<std::string>{"manifest.json", "shard-000-of-003.safetensors", "shard-001-of-003.safetensors",
                                      "shard-002-of-003.safetensors"}));
  EXPECT_EQ(fs::file_size(fs::path(target()) / "manifest.json"), 2u);
}

TEST_F(SharedStagingTest, WhatStayedAfterPublishingGoesWithTheNextCall) {
  leave_shards(3);
  fs::rename(folder() / "checkpoint", target());  // and then the process was killed
  const auto refused = try_join();
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.refusal().message.find("exists already"), std::string::npos);
  EXPECT_EQ(names_in(root_), (std::vector<std::string>{"model"}));
}

TEST_F(SharedStagingTest, NeverReplacesATargetThatAppears) {
  const auto staging = join();
  for (const ShardClaim& claim : staging->claim(3)) write(*staging, claim);
  fs::create_directory(target());
  std::ofstream(fs::path(target()) / "theirs") << "x";
  const Status late = staging->publish({});
  ASSERT_FALSE(late.ok());
  EXPECT_NE(late.refusal().message.find("appeared meanwhile"), std::string::npos);
  EXPECT_TRUE(fs::exists(fs::path(target()) / "theirs"));
}

TEST_F(SharedStagingTest, AShardThatDoesNotFitItsRecordIsUnfinished) {
  leave_shards(3);
  fs::resize_file(folder() / "checkpoint" / shard_file_name(0, 3), 3);
  fs::remove(folder() / "checkpoint" / shard_file_name(1, 3));
  std::ofstream(folder() / "shard-002.json") << R"({"bytes":7})";
  EXPECT_EQ(numbers(join()->claim(3)), (std::vector{0, 1, 2}));
}

TEST_F(SharedStagingTest, AFolderOfAnotherUserIsNotTrusted) {
  if (geteuid() != 0) GTEST_SKIP() << "needs to give a folder away";
  fs::create_directory(folder());
  ASSERT_EQ(chown(folder().c_str(), 12345, 12345), 0);
  EXPECT_THROW((void)try_join(), Error);
}

TEST(StagingRecord, RoundTripsAndRefusesTheRest) {
  const ShardRecord record{123, std::string(64, 'a'), {4, {"one", "two"}}};
  EXPECT_EQ(parse_shard_record(shard_record_text(record)).value(), record);
  for (const char* text : {"", "{}", "[]", R"({"bytes":1,"sha256":"x","nonfinite":0,"warnings":[]})",
                           R"({"bytes":"1","sha256":"x","nonfinite":0,"warnings":[]})"}) {
    EXPECT_FALSE(parse_shard_record(text).ok()) << text;
  }
}

TEST(StagingRecord, NamesEveryDifference) {
  EXPECT_EQ(record_difference(R"({"a":1,"b":{"c":2}})", R"({"b":{"c":2},"a":1})"), "");
  EXPECT_EQ(record_difference(R"({"a":1,"b":{"c":2,"d":3}})", R"({"b":{"c":4,"d":3},"e":[]})"),
            "a (found 1, expected nothing), b.c (found 2, expected 4), e (found nothing, expected [])");
  EXPECT_FALSE(record_difference("broken", "{}").empty());
}

}  // namespace shared_staging_test
}  // namespace optserve::checkpoint
