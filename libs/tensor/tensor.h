// A Tensor is a view: pointer, element type and shape. It never owns memory; a Buffer does. Elements are contiguous (C
// order) unless `row_stride` says otherwise for 2-D views into a wider matrix.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>

#include "base/check.h"
#include "tensor/device.h"
#include "tensor/dtype.h"

namespace optserve {

// Whether elements of `dtype` are read as C++ type T. The 16-bit floats are read as their bits, uint16_t.
template <class T>
constexpr bool is_element_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return std::is_same_v<T, float>;
    case DType::kF64:
      return std::is_same_v<T, double>;
    case DType::kF16:
    case DType::kBF16:
      return std::is_same_v<T, uint16_t>;
    case DType::kI64:
      return std::is_same_v<T, int64_t>;
    case DType::kI32:
      return std::is_same_v<T, int32_t>;
    case DType::kI16:
      return std::is_same_v<T, int16_t>;
    case DType::kI8:
      return std::is_same_v<T, int8_t>;
    case DType::kU8:
    case DType::kBool:
    case DType::kF8E4M3:
      return std::is_same_v<T, uint8_t>;
  }
  return false;
}

class Tensor {
 public:
  static constexpr int kDimsMax = 4;

  Tensor() = default;
  // `data` must hold the product of `shape` elements of `dtype` on `device`. At most kDimsMax axes, none negative.
  Tensor(void* data, DType dtype, std::initializer_list<int64_t> shape, Device device = {});

  bool empty() const { return data_ == nullptr; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  int ndim() const { return ndim_; }
  int64_t dim(int axis) const {
    check(axis >= 0 && axis < ndim_, "tensor axis out of range");
    return shape_[static_cast<size_t>(axis)];
  }
  std::span<const int64_t> shape() const { return {shape_.data(), static_cast<size_t>(ndim_)}; }
  int64_t numel() const;  // product of the shape
  // Elements from the start of one row (last axis) to the next; at least dim(ndim - 1).
  int64_t row_stride() const { return row_stride_; }
  bool contiguous() const { return ndim_ == 0 || row_stride_ == shape_[static_cast<size_t>(ndim_ - 1)]; }
  size_t bytes() const;  // numel() * element size; aborts for strided views
  void* raw() const { return data_; }

  // Typed pointer; aborts unless is_element_type<T>(dtype()).
  template <class T>
  T* data() const {
    check(is_element_type<T>(dtype_), "tensor holds another element type");
    return static_cast<T*>(data_);
  }
  // Start of row `index` of a 2-D tensor.
  template <class T>
  T* row(int64_t index) const {
    return data<T>() + index * row_stride_;
  }

  // Rows [begin, end) of axis 0, same storage.
  Tensor rows(int64_t begin, int64_t end) const;
  // Columns [begin, end) of a 2-D tensor: a strided view, same storage.
  Tensor columns(int64_t begin, int64_t end) const;
  // The same storage and number of elements with a different shape; contiguous views only.
  Tensor reshape(std::initializer_list<int64_t> shape) const;

  std::string describe() const;  // "F32[3, 768]"

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  Device device_;
  int ndim_ = 0;
  std::array<int64_t, kDimsMax> shape_{};
  int64_t row_stride_ = 0;
};

}  // namespace optserve
