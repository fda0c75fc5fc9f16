#include "checkpoint/io/write_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <random>

#include "base/error.h"
#include "base/ids.h"

namespace optserve::checkpoint {
namespace write_queue_test {

namespace fs = std::filesystem;

class WriteQueueTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("optserve-write-queue-" + Id128::random().hex());
    fs::create_directory(root_);
  }
  void TearDown() override { fs::remove_all(root_); }
  std::shared_ptr<OpenFile> create(const std::string& name) const {
    return std::make_shared<OpenFile>(::open((root_ / name).c_str(), O_WRONLY | O_CREAT, 0600), name);
  }
  static std::shared_ptr<OpenFile> full_disk() {
    return std::make_shared<OpenFile>(::open("/dev/full", O_WRONLY), "the/path");
  }
  std::string content(const std::string& name) const {
    std::ifstream file(root_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

  fs::path root_;
};

TEST_F(WriteQueueTest, EachFileGetsItsPiecesInOrder) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::shared_ptr<OpenFile> files[] = {create("a"), create("b"), create("c")};
  std::string expected[3];
  WriteQueue queue(1000);
  for (int i = 0; i < 60; ++i) {
    const size_t file = random() % 3;
    const size_t size = random() % 3 == 0 ? random() % (3 * WriteBlock::kBytes) : random() % 400;
    const std::string piece(random() % 8 == 0 ? WriteBlock::kBytes : size, static_cast<char>('a' + i % 26));
    expected[file] += piece;  // some are whole blocks, some larger than the queue
    queue.write(files[file], bytes(piece));
  }
  for (const auto& file : files) queue.finish(file);
  const char* const names[] = {"a", "b", "c"};
  for (size_t file = 0; file < 3; ++file) {
    EXPECT_EQ(content(names[file]), expected[file]);
    EXPECT_EQ(files[file]->hash.finish(), sha256(expected[file]));
  }
  queue.finish(files[0]);
}

TEST_F(WriteQueueTest, AFailedWriteIsThrownLaterAndEndsAll) {
  const std::shared_ptr<OpenFile> full = full_disk();
  ASSERT_GE(full->fd, 0);
  const std::shared_ptr<OpenFile> good = create("good");
  WriteQueue queue(1 << 20);
  queue.write(full, bytes("x"));
  std::optional<std::string> failure;
  try {
    queue.finish(full);
  } catch (const Error& error) {
    failure = error.what();
  }
  ASSERT_TRUE(failure);
  EXPECT_NE(failure->find("write the/path"), std::string::npos) << *failure;
  EXPECT_THROW(queue.write(good, bytes("y")), Error);
  EXPECT_THROW(queue.finish(good), Error);
  EXPECT_EQ(content("good"), "");
}

// A full queue must not wait forever for a writer that is gone.
TEST_F(WriteQueueTest, AWriterThatWaitsForRoomHearsOfTheFailure) {
  const std::shared_ptr<OpenFile> full = full_disk();
  ASSERT_GE(full->fd, 0);
  WriteQueue queue(1);
  const std::string piece(WriteBlock::kBytes, 'x');
  EXPECT_THROW(
      {
        for (int i = 0; i < 100; ++i) queue.write(full, bytes(piece));
      },
      Error);
}

// tmpfs and some network file systems have no O_DIRECT, or refuse it at the first write.
TEST_F(WriteQueueTest, AFileSystemWithoutDirectWritesGetsTheSameBytes) {
  const std::string text(2 * WriteBlock::kBytes + 7, 'x');
  const auto file = std::make_shared<OpenFile>(memfd_create("direct", MFD_CLOEXEC), "memory");
  WriteQueue queue(1 << 20);
  queue.write(file, bytes(text));
  queue.finish(file);
  EXPECT_EQ(lseek(file->fd, 0, SEEK_END), static_cast<off_t>(text.size()));
  EXPECT_EQ(file->hash.finish(), sha256(text));
}

TEST_F(WriteQueueTest, TheEndWaitsForThePieceAtWorkOnlyAndClosesTheFile) {
  const std::string piece(1 << 20, 'x');
  std::weak_ptr<OpenFile> watched;
  {
    WriteQueue queue(64 << 20);
    const std::shared_ptr<OpenFile> file = create("a");
    watched = file;
    for (int i = 0; i < 50; ++i) queue.write(file, bytes(piece));
  }
  EXPECT_EQ(content("a").size() % piece.size(), 0u);  // whole pieces, and the queue is gone
  EXPECT_TRUE(watched.expired());
}

}  // namespace write_queue_test
}  // namespace optserve::checkpoint
