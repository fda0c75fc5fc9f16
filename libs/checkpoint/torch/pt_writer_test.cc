#include "checkpoint/torch/pt_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/ids.h"
#include "checkpoint/torch/pickle_writer.h"
#include "checkpoint/torch/pt_file.h"

namespace optserve::checkpoint {
namespace pt_writer_test {

namespace fs = std::filesystem;

class PtWriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("optserve-pt-writer-" + Id128::random().hex());
    fs::create_directory(root_);
    folder_ = ::open(root_.c_str(), O_RDONLY | O_DIRECTORY);
  }
  void TearDown() override {
    ::close(folder_);
    fs::remove_all(root_);
  }

  OutputFile file(const std::string& name) { return OutputFile(folder_, name, (root_ / name).string(), queue_); }

  static std::string pickle() {
    PickleWriter writer;
    writer.begin_dict();
    writer.text("cfg");
    writer.begin_dict();
    writer.text("layers");
    writer.integer(-7);
    writer.text("large");
    writer.integer(int64_t{1} << 40);
    writer.text("name");
    writer.text("h\xc3\xa4");
    writer.text("flag");
    writer.boolean(true);
    writer.end_dict();
    writer.text("model");
    writer.begin_dict();
    writer.text("matrix");
    writer.tensor(0, DType::kF16, {2, 3});
    writer.text("vector");
    writer.tensor(1, DType::kF32, {2});
    writer.end_dict();
    writer.end_dict();
    return writer.finish();
  }

  std::string write(const std::string& name, uint64_t wide_from) {
    PtWriter writer(file(name), pickle(), wide_from);
    writer.begin_storage(12);
    writer.append(std::as_bytes(std::span("abcdef", 6)));  // in two pieces
    writer.append(std::as_bytes(std::span("ghijkl", 6)));
    writer.begin_storage(8);
    writer.append(std::as_bytes(std::span("mnopqrst", 8)));
    writer.finish();
    std::ifstream stream(root_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  fs::path root_;
  int folder_ = -1;
  WriteQueue queue_{1 << 20};
};

TEST_F(PtWriterTest, OurReaderFindsEverything) {
  for (const uint64_t wide_from : {uint64_t{UINT32_MAX}, uint64_t{100}, uint64_t{0}}) {
    const std::string name = "x" + std::to_string(wide_from) + ".pt";
    write(name, wide_from);
    auto opened = PtFile::open((root_ / name).string());
    ASSERT_TRUE(opened.ok()) << opened.refusal().message;
    PtFile& read = *opened.value();
    const PickleDocument& doc = read.document();
    const ValueId cfg = *doc.find(doc.root(), "cfg");
    EXPECT_EQ(doc.integer(*doc.find(cfg, "layers")), -7);
    EXPECT_EQ(doc.integer(*doc.find(cfg, "large")), int64_t{1} << 40);
    EXPECT_EQ(doc.text(*doc.find(cfg, "name")), "h\xc3\xa4");
    EXPECT_EQ(doc.integer(*doc.find(cfg, "flag")), 1);
    const PickleTensor& matrix = doc.tensor(*doc.find(*doc.find(doc.root(), "model"), "matrix"));
    EXPECT_EQ(matrix.shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(matrix.stride, (std::vector<int64_t>{3, 1}));
    EXPECT_TRUE(read.check_storage(matrix).ok());
    std::string bytes(12, ' ');
    read.read_rows(matrix, 0, 2, std::as_writable_bytes(std::span(bytes)));
    EXPECT_EQ(bytes, "abcdefghijkl");
    const PickleTensor& vector = doc.tensor(*doc.find(*doc.find(doc.root(), "model"), "vector"));
    EXPECT_EQ(read.dtype(vector), DType::kF32);
    EXPECT_TRUE(read.check_storage(vector).ok());
  }
}

TEST_F(PtWriterTest, DataIsAlignedAndBytesRepeat) {
  const std::string bytes = write("a.pt", UINT32_MAX);
  EXPECT_EQ(bytes, write("b.pt", UINT32_MAX));
  EXPECT_EQ(bytes.find("abcdefghijkl") % 64, 0u);
  EXPECT_EQ(bytes.find("mnopqrst") % 64, 0u);
  EXPECT_EQ(write("c.pt", 0).find("mnopqrst") % 64, 0u);
}

TEST_F(PtWriterTest, StoragesHaveTheirLength) {
  EXPECT_DEATH(
      {
        PtWriter writer(file("short.pt"), pickle());
        writer.begin_storage(12);
        writer.begin_storage(8);
      },
      "still lacks");
  EXPECT_DEATH(
      {
        PtWriter writer(file("long.pt"), pickle());
        writer.begin_storage(1);
        writer.append(std::as_bytes(std::span("ab", 2)));
      },
      "more bytes");
}

}  // namespace pt_writer_test
}  // namespace optserve::checkpoint
