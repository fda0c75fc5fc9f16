// Checks named dimensions across the arguments of one operation. A name is bound by its first use; a later tensor that
// disagrees aborts with "layer_norm: gamma: hidden: 768 != 1024". Allocates nothing unless it fails.
#pragma once

#include <array>
#include <initializer_list>
#include <string_view>

#include "tensor/tensor.h"

namespace optserve {

class ShapeCheck {
 public:
  explicit ShapeCheck(std::string_view operation) : operation_(operation) {}

  // Binds `name` without a tensor, or checks it against its binding.
  ShapeCheck& bind(std::string_view name, int64_t size) {
    match("argument", name, size);
    return *this;
  }
  // `value` must be a non-null tensor of `dtype` (with data unless it has no elements) whose axes are `axes`.
  ShapeCheck& expect(std::string_view argument, const Tensor& value, DType dtype,
                     std::initializer_list<std::string_view> axes);
  // The same, but the rows must follow each other without gaps.
  ShapeCheck& expect_contiguous(std::string_view argument, const Tensor& value, DType dtype,
                                std::initializer_list<std::string_view> axes);
  // The size bound to `name`; aborts if there is none.
  int64_t operator[](std::string_view name) const;

 private:
  struct Dimension {
    std::string_view name;
    int64_t size = 0;
  };
  static constexpr size_t kDimensionsMax = 16;

  void match(std::string_view argument, std::string_view name, int64_t size);
  [[noreturn]] void fail(std::string_view argument, const std::string& why) const;

  std::string_view operation_;
  std::array<Dimension, kDimensionsMax> dimensions_;
  size_t count_ = 0;
};

}  // namespace optserve
