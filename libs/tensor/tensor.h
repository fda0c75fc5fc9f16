// A Tensor is a view: pointer, element type, shape. It never owns; a Buffer does. Rows are contiguous (C order) unless
// `row_stride` says otherwise for 2-D views into a wider matrix.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "tensor/device.h"
#include "tensor/dtype.h"

namespace optserve {

class Tensor {
 public:
  static constexpr int kDimsMax = 4;

  Tensor() = default;
  // `data` must hold the product of `shape` elements of `dtype` on `device`.
  Tensor(void* data, DType dtype, std::initializer_list<int64_t> shape, Device device = {});

  bool empty() const { return data_ == nullptr; }
  DType dtype() const { return dtype_; }
  Device device() const { return device_; }
  int ndim() const { return ndim_; }
  int64_t dim(int axis) const { return shape_[static_cast<size_t>(axis)]; }
  std::span<const int64_t> shape() const { return {shape_.data(), static_cast<size_t>(ndim_)}; }
  int64_t numel() const;                   // product of the shape
  int64_t row_stride() const { return row_stride_; }  // elements from one row of the last axis to the next
  size_t bytes() const;                    // numel() * element size; only for contiguous views
  void* raw() const { return data_; }

  // Typed pointer; aborts if T is not the element type (float, int32_t, Half, BFloat16, int8_t, ...).
  template <class T>
  T* data() const {
    check_eq(static_cast<int>(dtype_of<T>()), static_cast<int>(dtype_), "tensor element type");
    return static_cast<T*>(data_);
  }

  // Rows [begin, end) of axis 0, same storage.
  Tensor rows(int64_t begin, int64_t end) const;
  // Columns [begin, end) of a 2-D tensor: a strided view, same storage.
  Tensor columns(int64_t begin, int64_t end) const;
  // Same storage and number of elements, other shape; contiguous views only.
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
