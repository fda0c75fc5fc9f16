#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>
#include <vector>

#include "tensor/buffer.h"
#include "tensor/shape_check.h"

namespace optserve {
namespace tensor_test {

class TensorTest : public testing::Test {
 protected:
  TensorTest() : values_(24) { std::iota(values_.begin(), values_.end(), 0.0f); }
  std::vector<float> values_;
};

TEST_F(TensorTest, DescribesItself) {
  const Tensor x(values_.data(), DType::kF32, {3, 8});
  EXPECT_EQ(x.describe(), "F32[3, 8]");
  EXPECT_EQ(x.numel(), 24);
  EXPECT_EQ(x.bytes(), 96u);
  EXPECT_TRUE(x.contiguous());
  EXPECT_EQ(Tensor().describe(), "F32[]");
  EXPECT_EQ(Tensor().numel(), 0);
}

TEST_F(TensorTest, RowsShareStorage) {
  const Tensor x(values_.data(), DType::kF32, {3, 2, 4});
  const Tensor tail = x.rows(1, 3);
  EXPECT_EQ(tail.describe(), "F32[2, 2, 4]");
  EXPECT_EQ(tail.data<float>()[0], 8.0f);
  const Tensor flat = Tensor(values_.data(), DType::kF32, {24}).rows(5, 7);
  EXPECT_EQ(flat.data<float>()[0], 5.0f);
  EXPECT_TRUE(flat.contiguous());
  EXPECT_EQ(x.rows(3, 3).numel(), 0);
}

TEST_F(TensorTest, ColumnsAreStrided) {
  const Tensor x(values_.data(), DType::kF32, {3, 8});
  const Tensor middle = x.columns(2, 5);
  EXPECT_FALSE(middle.contiguous());
  EXPECT_EQ(middle.dim(1), 3);
  EXPECT_EQ(middle.row<float>(2)[0], 18.0f);
  EXPECT_EQ(middle.rows(1, 3).row<float>(1)[0], 18.0f);
  EXPECT_EQ(middle.columns(1, 2).row<float>(0)[0], 3.0f);
}

TEST_F(TensorTest, ReshapeKeepsElements) {
  const Tensor x(values_.data(), DType::kF32, {3, 8});
  EXPECT_EQ(x.reshape({2, 3, 4}).describe(), "F32[2, 3, 4]");
  EXPECT_DEATH(x.reshape({5, 5}), "F32\\[3, 8\\] to F32\\[5, 5\\]");
  EXPECT_DEATH(x.columns(0, 3).reshape({9}), "strided");
}

TEST_F(TensorTest, MistakesAbort) {
  const Tensor x(values_.data(), DType::kF32, {3, 8});
  EXPECT_DEATH(x.rows(2, 4), "rows 2 to 4 of F32\\[3, 8\\]");
  EXPECT_DEATH(x.columns(-1, 4), "columns -1 to 4 of F32\\[3, 8\\]");
  EXPECT_DEATH(x.data<int32_t>(), "another element type");
  EXPECT_DEATH(x.dim(2), "axis out of range");
  EXPECT_DEATH(Tensor(values_.data(), DType::kF32, {3, -1}), "negative");
}

TEST(IsElementType, MatchesSizes) {
  EXPECT_TRUE(is_element_type<float>(DType::kF32));
  EXPECT_TRUE(is_element_type<uint16_t>(DType::kBF16));
  EXPECT_FALSE(is_element_type<int32_t>(DType::kF32));
  EXPECT_FALSE(is_element_type<int16_t>(DType::kF16));
}

TEST(Buffer, OwnsAndViews) {
  static int freed = 0;
  {
    Buffer first(std::malloc(64), 64, Device{}, [](void* data) {
      ++freed;
      std::free(data);
    });
    const Buffer second = std::move(first);
    EXPECT_EQ(first.data(), nullptr);  // NOLINT: the moved-from state is the subject
    EXPECT_EQ(second.view(DType::kF32, {4, 4}).raw(), second.data());
    EXPECT_DEATH(second.view(DType::kF32, {4, 5}), "F32\\[4, 5\\] does not fit a buffer of 64 bytes");
    EXPECT_EQ(freed, 0);
  }
  EXPECT_EQ(freed, 1);
}

TEST_F(TensorTest, ShapeCheckBindsNames) {
  const Tensor x(values_.data(), DType::kF32, {3, 8});
  const Tensor gamma(values_.data(), DType::kF32, {8});
  ShapeCheck shapes("norm");
  shapes.expect("x", x, DType::kF32, {"num_tokens", "hidden"}).expect("gamma", gamma, DType::kF32, {"hidden"});
  EXPECT_EQ(shapes["num_tokens"], 3);
  EXPECT_EQ(shapes["hidden"], 8);
  shapes.bind("hidden", 8);
  EXPECT_DEATH(shapes["ffn"], "norm: ffn: no such dimension");
}

TEST_F(TensorTest, ShapeCheckNamesTheMismatch) {
  const Tensor x(values_.data(), DType::kF32, {3, 8});
  const Tensor gamma(values_.data(), DType::kF32, {7});
  const Tensor ids(values_.data(), DType::kI32, {3});
  ShapeCheck shapes("norm");
  shapes.expect("x", x, DType::kF32, {"num_tokens", "hidden"});
  EXPECT_DEATH(shapes.expect("gamma", gamma, DType::kF32, {"hidden"}), "norm: gamma: hidden: 8 != 7");
  EXPECT_DEATH(shapes.expect("gamma", ids, DType::kF32, {"hidden"}), "norm: gamma: expected F32, found I32\\[3\\]");
  EXPECT_DEATH(shapes.expect("gamma", x, DType::kF32, {"hidden"}), "expected 1 axes, found F32\\[3, 8\\]");
  EXPECT_DEATH(shapes.expect("out", Tensor(nullptr, DType::kF32, {3, 8}), DType::kF32, {"num_tokens", "hidden"}),
               "no data behind");
  EXPECT_DEATH(shapes.expect_contiguous("out", x.columns(0, 4).rows(0, 3), DType::kF32, {"num_tokens", "half"}),
               "strided");
  EXPECT_DEATH(shapes.bind("num_tokens", 4), "norm: argument: num_tokens: 3 != 4");
}

}  // namespace tensor_test
}  // namespace optserve
