#include "tensor/shape_check.h"

namespace optserve {

void ShapeCheck::fail(std::string_view argument, const std::string& why) const {
  std::string text(operation_);
  text.append(": ").append(argument).append(": ").append(why);
  check_failed(text, std::source_location::current());
}

void ShapeCheck::match(std::string_view argument, std::string_view name, int64_t size) {
  for (size_t i = 0; i < count_; ++i) {
    if (dimensions_[i].name != name) continue;
    if (dimensions_[i].size != size) {
      fail(argument, std::string(name) + ": " + std::to_string(dimensions_[i].size) + " != " + std::to_string(size));
    }
    return;
  }
  check(count_ < kDimensionsMax, "too many named dimensions in one operation");
  dimensions_[count_++] = {name, size};
}

ShapeCheck& ShapeCheck::expect(std::string_view argument, const Tensor& value, DType dtype,
                               std::initializer_list<std::string_view> axes) {
  if (value.ndim() != static_cast<int>(axes.size())) {
    fail(argument, "expected " + std::to_string(axes.size()) + " axes, found " + value.describe());
  }
  if (value.dtype() != dtype) {
    fail(argument, "expected " + std::string(dtype_name(dtype)) + ", found " + value.describe());
  }
  if (value.empty() && value.numel() != 0) fail(argument, "no data behind " + value.describe());
  int axis = 0;
  for (const std::string_view name : axes) match(argument, name, value.dim(axis++));
  return *this;
}

ShapeCheck& ShapeCheck::expect_contiguous(std::string_view argument, const Tensor& value, DType dtype,
                                          std::initializer_list<std::string_view> axes) {
  expect(argument, value, dtype, axes);
  if (!value.contiguous()) fail(argument, "expected contiguous rows, found a strided view " + value.describe());
  return *this;
}

int64_t ShapeCheck::operator[](std::string_view name) const {
  for (size_t i = 0; i < count_; ++i) {
    if (dimensions_[i].name == name) return dimensions_[i].size;
  }
  fail(name, "no such dimension");
}

}  // namespace optserve
