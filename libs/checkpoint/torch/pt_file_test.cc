#include "checkpoint/torch/pt_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "checkpoint/torch/testing/pt_builder.h"

namespace optserve::checkpoint {
namespace pt_file_test {

namespace op = testing::op;
using testing::PtBuilder;
using testing::zip_bytes;

std::string floats(int count) {
  std::string bytes;
  for (int i = 0; i < count; ++i) {
    const float value = static_cast<float>(i);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return bytes;
}

// The file and the bytes it reads from.
struct Opened {
  explicit Opened(std::string content) : bytes(std::move(content)) {
    file = PtFile::read(std::make_unique<MemorySource>(std::as_bytes(std::span(bytes)), "x.pt"));
  }
  std::string fault() const { return file.ok() ? "accepted" : file.refusal().message; }
  const PickleTensor& tensor(const char* name) const {
    const PickleDocument& doc = file.value()->document();
    return doc.tensor(*doc.find(*doc.find(doc.root(), "model"), name));
  }
  std::vector<float> rows(const char* name, int64_t row, int64_t count, size_t columns) const {
    std::vector<float> out(static_cast<size_t>(count) * columns);
    file.value()->read_rows(tensor(name), row, count, std::as_writable_bytes(std::span(out)));
    return out;
  }
  std::string bytes;
  Result<std::unique_ptr<PtFile>> file = refuse(ErrorCode::kInternal, "not opened");
};

TEST(PtFile, ReadsViewsOfOneStorage) {
  PtBuilder builder;
  const size_t storage = builder.add_storage(DType::kF32, floats(24));
  builder.add_view("whole", storage, 0, {4, 6}, {6, 1});
  builder.add_view("tail", storage, 18, {6}, {1});
  builder.add_view("columns", storage, 2, {4, 3}, {6, 1});
  builder.add_view("transposed", storage, 0, {6, 4}, {1, 6});
  builder.add_view("every_other", storage, 1, {5}, {4});
  builder.add_view("cube", storage, 0, {2, 3, 4}, {12, 4, 1});
  builder.add_view("scrambled", storage, 0, {2, 3, 2}, {1, 4, 2});
  const Opened opened(builder.file());
  ASSERT_TRUE(opened.file.ok()) << opened.fault();
  EXPECT_EQ(opened.rows("whole", 1, 2, 6), (std::vector<float>{6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}));
  EXPECT_EQ(opened.rows("tail", 2, 3, 1), (std::vector<float>{20, 21, 22}));
  EXPECT_EQ(opened.rows("columns", 1, 2, 3), (std::vector<float>{8, 9, 10, 14, 15, 16}));
  EXPECT_EQ(opened.rows("transposed", 2, 2, 4), (std::vector<float>{2, 8, 14, 20, 3, 9, 15, 21}));
  EXPECT_EQ(opened.rows("every_other", 1, 3, 1), (std::vector<float>{5, 9, 13}));
  EXPECT_EQ(opened.rows("cube", 1, 1, 12), (std::vector<float>{12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23}));
  EXPECT_FALSE(PtFile::readable(opened.tensor("scrambled")));
  EXPECT_TRUE(opened.file.value()->check_storage(opened.tensor("tail")).ok());
}

TEST(PtFile, ReadsZip64) {
  PtBuilder builder;
  builder.add_tensor("a", DType::kF32, {2, 2}, floats(4));
  const Opened opened(zip_bytes(builder.members(), true));
  ASSERT_TRUE(opened.file.ok()) << opened.fault();
  EXPECT_EQ(opened.rows("a", 1, 1, 2), (std::vector<float>{2, 3}));
}

TEST(PtFile, FindsDamagedBytes) {
  PtBuilder builder;
  builder.add_tensor("a", DType::kF32, {4}, floats(4));
  std::string bytes = builder.file();
  bytes[bytes.find(floats(4)) + 5] ^= 1;
  const Opened opened(bytes);
  ASSERT_TRUE(opened.file.ok()) << opened.fault();
  const Status status = opened.file.value()->check_storage(opened.tensor("a"));
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.refusal().message.find("data/0 is damaged"), std::string::npos);
  bytes = builder.file();
  bytes[bytes.find("model")] ^= 1;
  EXPECT_NE(Opened(bytes).fault().find("data.pkl is damaged"), std::string::npos);
}

TEST(PtFile, RefusesStoragesThatDoNotMatchTheirRecords) {
  PtBuilder builder;
  builder.add_tensor("a", DType::kF32, {4}, floats(4));
  auto members = builder.members();
  members[2].data.resize(12);
  EXPECT_NE(Opened(zip_bytes(members)).fault().find("has 12 bytes, its description says 16"), std::string::npos);
  members.pop_back();
  EXPECT_NE(Opened(zip_bytes(members)).fault().find("is missing"), std::string::npos);
}

TEST(PtFile, RefusesAliasBombs) {
  PtBuilder builder;
  const size_t storage = builder.add_storage(DType::kF32, floats(50'000));
  for (int i = 0; i < 100; ++i) builder.add_view("t" + std::to_string(i), storage, 0, {50'000}, {1});
  EXPECT_NE(Opened(builder.file()).fault().find("more than twice"), std::string::npos);
}

TEST(PtFile, RefusesForeignMembersAndByteOrders) {
  PtBuilder builder;
  auto members = builder.members();
  members.push_back({"archive/../../etc/passwd", "x"});
  EXPECT_NE(Opened(zip_bytes(members)).fault().find("torch.save does not write"), std::string::npos);
  members.back() = {"other/data/0", "x"};
  EXPECT_NE(Opened(zip_bytes(members)).fault().find("torch.save does not write"), std::string::npos);
  members.back() = {"archive/code/run.py", "x"};
  EXPECT_NE(Opened(zip_bytes(members)).fault().find("torch.save does not write"), std::string::npos);
  members.back() = {"archive/byteorder", "big"};
  EXPECT_NE(Opened(zip_bytes(members)).fault().find("expected 'little'"), std::string::npos);
  EXPECT_NE(Opened(zip_bytes({{"plain", "x"}})).fault().find("not one of torch.save"), std::string::npos);
  EXPECT_NE(Opened(zip_bytes({{"a/version", "3"}})).fault().find("without data.pkl"), std::string::npos);
}

TEST(PtFile, SaysWhatElseAFileIs) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "empty"},
      {"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "cut at byte 0"},
      {"\x80\x02}q.", "a pickle, but not one of torch.save"},
      {"<!DOCTYPE html>", "web page"},
      {"\x1f\x8b\x08", "gzip"},
      {"version https://git-lfs.github.com/spec/v1", "Git LFS"},
      {"garbage", "not a zip file"},
  };
  for (const auto& [bytes, expected] : cases) {
    EXPECT_NE(Opened(bytes).fault().find(expected), std::string::npos) << Opened(bytes).fault();
  }
}

}  // namespace pt_file_test
}  // namespace optserve::checkpoint
