// Writer and reader together: full tensors go in, and the blocks of every rank of every group size come out.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/ids.h"
#include "checkpoint/reader.h"
#include "checkpoint/testing/block_places.h"
#include "checkpoint/writer.h"

namespace optserve::checkpoint {
namespace checkpoint_test {

namespace fs = std::filesystem;
using model_spec::Block;
using model_spec::TensorSpec;

class Checkpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("optserve-checkpoint-test-" + Id128::random().hex());
    fs::create_directory(root_);
    plan_.config.name = "tiny";
    plan_.config.num_layers = 2;
    plan_.config.hidden = 16;
    plan_.config.embed_dim = 8;
    plan_.config.num_heads = 4;
    plan_.config.ffn = 32;
    plan_.config.vocab = 40;
    plan_.config.vocab_real = 37;
    plan_.config.max_positions = 6;
    plan_.shards = 4;
  }
  void TearDown() override { fs::remove_all(root_); }

  std::string target() const { return (root_ / "model").string(); }

  // A full tensor of arbitrary bytes, which are the same for the same name.
  std::vector<uint16_t> full(const TensorSpec& spec) const {
    std::mt19937 random(static_cast<unsigned>(std::hash<std::string>{}(spec.name)));
    std::vector<uint16_t> values(static_cast<size_t>(spec.elements()));
    for (uint16_t& value : values) value = static_cast<uint16_t>(random());
    return values;
  }

  // The block by its definition, element by element.
  std::vector<uint16_t> block(const TensorSpec& spec, int rank, int world) const {
    const std::vector<uint16_t> values = full(spec);
    std::vector<uint16_t> out;
    for (const auto& [row, col] : testing::places_of(model_spec::block_of(spec, rank, world))) {
      out.push_back(values[static_cast<size_t>(row * spec.cols + col)]);
    }
    return out;
  }

  void append_all(CheckpointWriter& writer) const {
    for (const TensorSpec& spec : model_spec::opt_tensors(plan_.config)) {
      for (int shard = 0; shard < plan_.shards; ++shard) {
        const std::vector<uint16_t> values = block(spec, shard, plan_.shards);
        writer.append(shard, std::as_bytes(std::span(values)));
      }
    }
  }

  void write() const {
    auto writer = CheckpointWriter::create(target(), plan_);
    ASSERT_TRUE(writer.ok()) << writer.refusal().message;
    append_all(*writer.value());
    writer.value()->add_tokenizer("{}", "#version: 0.2\n");
    const Status status = writer.value()->publish({"test", {}}, "optserve test");
    ASSERT_TRUE(status.ok()) << status.refusal().message;
  }

  std::string open_fault() const {
    const Result<CheckpointReader> reader = CheckpointReader::open(target());
    return reader.ok() ? "opened" : reader.refusal().message;
  }

  static void overwrite(const fs::path& file, int64_t offset, char value) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(offset);
    stream.put(value);
  }

  fs::path root_;
  CheckpointWriter::Plan plan_;
};

TEST_F(Checkpoint, EveryRankOfEveryGroupSizeGetsItsBlocks) {
  write();
  const Result<CheckpointReader> opened = CheckpointReader::open(target());
  ASSERT_TRUE(opened.ok()) << opened.refusal().message;
  const CheckpointReader& reader = opened.value();
  EXPECT_EQ(reader.config(), plan_.config);
  EXPECT_NE(reader.manifest_digest(), 0u);
  EXPECT_TRUE(fs::exists(reader.vocab_path()));
  for (int world : {1, 2, 4}) {
    ASSERT_TRUE(reader.check_world(world).ok());
    for (const TensorSpec& spec : reader.tensors()) {
      for (int rank = 0; rank < world; ++rank) {
        std::vector<uint16_t> found(reader.block_bytes(spec, world) / 2);
        reader.read_block(spec, rank, world, std::as_writable_bytes(std::span(found)));
        ASSERT_EQ(found, block(spec, rank, world)) << spec.name << " rank " << rank << " of " << world;
      }
    }
  }
  EXPECT_NE(reader.check_world(3).refusal().message.find("groups of 1, 2, 4 ranks, not 3"), std::string::npos);
  EXPECT_FALSE(reader.check_world(8).ok());
  EXPECT_FALSE(reader.check_world(0).ok());
}

TEST_F(Checkpoint, ChecksumsFindAFlippedBitInTheRanksThatReadIt) {
  write();
  const fs::path damaged = root_ / "model" / shard_file_name(2, 4);
  overwrite(damaged, static_cast<int64_t>(fs::file_size(damaged)) - 3, '\x55');
  const Result<CheckpointReader> reader = CheckpointReader::open(target());
  ASSERT_TRUE(reader.ok()) << reader.refusal().message;
  EXPECT_TRUE(reader.value().verify_checksums(0, 2, 2).ok());
  uint64_t last = 0;
  const Status status = reader.value().verify_checksums(1, 2, 2, [&](uint64_t done, uint64_t total) {
    EXPECT_GT(done, last);
    EXPECT_LE(done, total);
    last = done;
  });
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.refusal().message.find("shard-002-of-004"), std::string::npos);
  EXPECT_FALSE(reader.value().verify_checksums(0, 1, 4).ok());
}

TEST_F(Checkpoint, NamesEveryDamagedFileTogether) {
  write();
  fs::remove(root_ / "model" / shard_file_name(0, 4));
  fs::resize_file(root_ / "model" / shard_file_name(1, 4), 5000);
  fs::remove(root_ / "model" / shard_file_name(3, 4));
  fs::create_directory(root_ / "model" / shard_file_name(3, 4));
  overwrite(root_ / "model" / shard_file_name(2, 4), 12, '\x01');
  const std::string fault = open_fault();
  for (int shard = 0; shard < 4; ++shard) EXPECT_NE(fault.find(shard_file_name(shard, 4)), std::string::npos) << fault;
  EXPECT_NE(fault.find("has 5000 bytes, the manifest says"), std::string::npos) << fault;
}

TEST_F(Checkpoint, RefusesShardsOfAnotherModel) {
  write();
  const std::string shards = target();
  fs::rename(shards, root_ / "first");
  plan_.config.ffn = 64;
  write();
  // The shards of the first model with the manifest of the second, with adjusted sizes.
  std::ifstream in(target() + "/manifest.json");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  Result<Manifest> manifest = parse_manifest(text);
  ASSERT_TRUE(manifest.ok());
  for (int i = 0; i < 4; ++i) {
    const std::string name = shard_file_name(i, 4);
    fs::copy_file(root_ / "first" / name, fs::path(target()) / name, fs::copy_options::overwrite_existing);
    manifest.value().files[static_cast<size_t>(i)].bytes = fs::file_size(root_ / "first" / name);
  }
  std::ofstream(target() + "/manifest.json") << manifest_text(manifest.value());
  const std::string fault = open_fault();
  EXPECT_NE(fault.find("'layers.0.ffn.up.weight' is F16[8, 16], expected F16[16, 16]"), std::string::npos) << fault;
}

TEST_F(Checkpoint, AFolderWithoutManifestIsNoCheckpoint) {
  EXPECT_NE(open_fault().find("found nothing"), std::string::npos);
  fs::create_directory(target());
  EXPECT_NE(open_fault().find("not a converted checkpoint"), std::string::npos);
}

TEST_F(Checkpoint, NothingIsVisibleBeforePublish) {
  {
    auto writer = CheckpointWriter::create(target(), plan_);
    ASSERT_TRUE(writer.ok());
    writer.value()->append(0, std::vector<std::byte>(8));
    EXPECT_FALSE(fs::exists(target()));
  }
  EXPECT_TRUE(fs::is_empty(root_));  // the staging folder is gone
}

TEST_F(Checkpoint, RefusesToReplace) {
  auto first = CheckpointWriter::create(target(), plan_);
  ASSERT_TRUE(first.ok());
  append_all(*first.value());
  write();  // a second conversion wins
  const Status late = first.value()->publish({"test", {}}, "optserve test");
  ASSERT_FALSE(late.ok());
  EXPECT_NE(late.refusal().message.find("appeared meanwhile"), std::string::npos);
  const auto again = CheckpointWriter::create(target() + "/", plan_);
  ASSERT_FALSE(again.ok());
  EXPECT_NE(again.refusal().message.find("exists already"), std::string::npos);
  EXPECT_TRUE(CheckpointWriter::create((root_ / "none" / "model").string(), plan_).ok());  // folders above are made
  plan_.shards = 3;
  EXPECT_FALSE(CheckpointWriter::create((root_ / "other").string(), plan_).ok());
  first = refuse(ErrorCode::kCancelled, "drop it");
  EXPECT_TRUE(CheckpointReader::open(target()).ok());
}

TEST_F(Checkpoint, FilesThatAreNoFiles) {
  const std::string fifo = (root_ / "fifo").string();
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  for (const std::string& path : {fifo, std::string("/dev/zero"), root_.string()}) {
    EXPECT_NE(InputFile::open(path).refusal().message.find("expected a regular file"), std::string::npos) << path;
  }
}

}  // namespace checkpoint_test
}  // namespace optserve::checkpoint
