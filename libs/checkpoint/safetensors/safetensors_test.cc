#include "checkpoint/safetensors/safetensors.h"

#include <gtest/gtest.h>

namespace optserve::checkpoint {
namespace safetensors_test {

// A file from header text and a number of data bytes.
std::string file_of(const std::string& header, size_t data_bytes) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return text + header + std::string(data_bytes, 'x');
}

Result<SafetensorsHeader> read(const std::string& bytes) {
  const MemorySource source(std::as_bytes(std::span(bytes)), "test.safetensors");
  return read_safetensors(source);
}

std::string fault_of(const std::string& bytes) {
  const Result<SafetensorsHeader> result = read(bytes);
  return result.ok() ? "accepted" : result.refusal().message;
}

TEST(Safetensors, RoundTripOfOurOwnHeader) {
  std::vector<StoredTensor> tensors = {{"b", DType::kF16, {3, 5}, 0, 0},
                                       {"a", DType::kF32, {7}, 0, 0},
                                       {"empty", DType::kU8, {0, 4}, 0, 0},
                                       {"scalar", DType::kI64, {}, 0, 0}};
  const std::string header = safetensors_header(tensors, {{"format", "x"}});
  EXPECT_EQ(header.size() % kDataAlignment, 0u);
  const std::string bytes = header + std::string(30 + 28 + 8, 'x');
  const Result<SafetensorsHeader> read_back = read(bytes);
  ASSERT_TRUE(read_back.ok()) << read_back.refusal().message;
  EXPECT_EQ(read_back.value().metadata.at("format"), "x");
  for (const StoredTensor& tensor : tensors) {
    const StoredTensor* found = read_back.value().find(tensor.name);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->shape, tensor.shape);
    EXPECT_EQ(found->dtype, tensor.dtype);
    EXPECT_EQ(found->bytes, tensor.bytes);
    EXPECT_EQ(found->offset, tensor.offset);
  }
}

TEST(Safetensors, RefusesEveryInconsistency) {
  const std::string good = R"({"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}})";
  EXPECT_EQ(fault_of(file_of(good, 8)), "accepted");
  const std::pair<std::string, const char*> cases[] = {
      {file_of(good, 9), "the file has"},
      {file_of(good, 7), "the file has"},
      {"abc", "3 bytes"},
      {file_of(good, 8).substr(0, 20), "header length"},
      {file_of("[1]", 0), "must be an object"},
      {file_of("{", 0), "not valid JSON"},
      {file_of(R"({"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]},)"
               R"("a":{"dtype":"F16","shape":[2,2],"data_offsets":[8,16]}})",
               16),
       "twice"},
      {file_of(R"({"a":{"dtype":"F16","shape":[2,2],"data_offsets":[2,10]}})", 10), "expected 0"},
      {file_of(R"({"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]},)"
               R"("b":{"dtype":"F16","shape":[4],"data_offsets":[4,12]}})",
               12),
       "expected 8"},
      {file_of(R"({"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,8]}})", 8), "does not have the bytes"},
      {file_of(R"({"a":{"dtype":"F16","shape":[-2,-2],"data_offsets":[0,8]}})", 8), "shape holds"},
      {file_of(R"({"a":{"dtype":"F17","shape":[2,2],"data_offsets":[0,8]}})", 8), "unknown dtype"},
      {file_of(R"({"a":{"dtype":"F16","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0), "does not have"},
      {file_of(R"({"a":{"dtype":"F16","shape":[2,2],"data_offsets":[8,0]}})", 8), "does not have the bytes"},
      {file_of(R"({"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8],"more":1}})", 8), "expected exactly"},
      {file_of(R"({"a":{"dtype":"F16","shape":[[2]],"data_offsets":[0,8]}})", 8), "deeper"},
      {file_of(R"({"__metadata__":{"a":1}})", 0), "not text"},
      {file_of("{\"\xff\":1}", 0), "not valid JSON"},
  };
  for (const auto& [bytes, expected] : cases) {
    EXPECT_NE(fault_of(bytes).find(expected), std::string::npos) << expected << " / " << fault_of(bytes);
  }
}

TEST(Safetensors, CheckedSizes) {
  EXPECT_EQ(checked_elements({}), 1u);
  EXPECT_EQ(checked_elements({3, 0, 5}), 0u);
  EXPECT_FALSE(checked_elements({-1}).has_value());
  EXPECT_FALSE(checked_elements({INT64_MAX, 2}).has_value());
  EXPECT_FALSE(checked_bytes({INT64_MAX / 2}, DType::kF64).has_value());
  EXPECT_EQ(shape_text({3, 4}), "[3, 4]");
}

// A header of 16 MiB would take thirty times its size in memory before it could be checked.
TEST(Safetensors, BoundsTheValuesOfItsHeader) {
  std::string numbers = R"({"x":{"shape":[)";
  for (int i = 0; i < 1'000'000; ++i) numbers += "0,";
  EXPECT_NE(fault_of(file_of(numbers + "0]}}", 0)).find("holds more than 1000000 values"), std::string::npos);
  std::string objects = "{";
  for (int i = 0; i < 1'000'000; ++i) objects += '"' + std::to_string(i) + "\":{},";
  EXPECT_NE(fault_of(file_of(objects + R"("x":{}})", 0)).find("holds more than 1000000 values"), std::string::npos);
}

}  // namespace safetensors_test
}  // namespace optserve::checkpoint
