#include "tensor/tensor.h"

namespace optserve {
namespace {

[[noreturn]] void fail(const std::string& what) { check_failed(what, std::source_location::current()); }

std::byte* advance(void* data, int64_t elements, DType dtype) {
  return static_cast<std::byte*>(data) + elements * static_cast<int64_t>(dtype_bytes(dtype));
}

}  // namespace

Tensor::Tensor(void* data, DType dtype, std::initializer_list<int64_t> shape, Device device)
    : data_(data), dtype_(dtype), device_(device), ndim_(static_cast<int>(shape.size())) {
  check(ndim_ >= 1 && ndim_ <= kDimsMax, "a tensor has one to four axes");
  size_t axis = 0;
  for (const int64_t size : shape) {
    check(size >= 0, "tensor axis is negative");
    shape_[axis++] = size;
  }
  row_stride_ = shape_[static_cast<size_t>(ndim_ - 1)];
}

int64_t Tensor::numel() const {
  int64_t product = ndim_ == 0 ? 0 : 1;
  for (const int64_t size : shape()) product *= size;
  return product;
}

size_t Tensor::bytes() const {
  check(contiguous(), "bytes() of a strided view");
  return static_cast<size_t>(numel()) * dtype_bytes(dtype_);
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  check(ndim_ >= 1, "rows() of an empty tensor");
  if (begin < 0 || begin > end || end > shape_[0]) {
    fail("rows " + std::to_string(begin) + " to " + std::to_string(end) + " of " + describe());
  }
  int64_t step = ndim_ == 1 ? 1 : row_stride_;
  for (int axis = 1; axis + 1 < ndim_; ++axis) step *= dim(axis);
  Tensor view = *this;
  view.data_ = advance(data_, begin * step, dtype_);
  view.shape_[0] = end - begin;
  if (ndim_ == 1) view.row_stride_ = end - begin;
  return view;
}

Tensor Tensor::columns(int64_t begin, int64_t end) const {
  check_eq(ndim_, 2, "columns() wants two axes");
  if (begin < 0 || begin > end || end > shape_[1]) {
    fail("columns " + std::to_string(begin) + " to " + std::to_string(end) + " of " + describe());
  }
  Tensor view = *this;
  view.data_ = advance(data_, begin, dtype_);
  view.shape_[1] = end - begin;
  return view;
}

Tensor Tensor::reshape(std::initializer_list<int64_t> shape) const {
  check(contiguous(), "reshape() of a strided view");
  const Tensor view(data_, dtype_, shape, device_);
  if (view.numel() != numel()) {
    fail("reshape() changes the number of elements: " + describe() + " to " + view.describe());
  }
  return view;
}

std::string Tensor::describe() const {
  std::string text(dtype_name(dtype_));
  text += '[';
  for (int axis = 0; axis < ndim_; ++axis) text += (axis == 0 ? "" : ", ") + std::to_string(dim(axis));
  return text + ']';
}

}  // namespace optserve
