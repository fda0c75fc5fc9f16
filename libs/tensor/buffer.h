// Owns bytes of a device. It is move-only, and frees them with the deleter of the backend that has allocated them.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <memory>

#include "tensor/tensor.h"

namespace optserve {

class Buffer {
 public:
  using Deleter = void (*)(void*);

  Buffer() = default;
  Buffer(void* data, size_t bytes, Device device, Deleter deleter)
      : data_(data, deleter), bytes_(bytes), device_(device) {}

  void* data() const { return data_.get(); }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  // A view of the first elements; aborts if they do not fit.
  Tensor view(DType dtype, std::initializer_list<int64_t> shape) const;

 private:
  std::unique_ptr<void, Deleter> data_{nullptr, nullptr};
  size_t bytes_ = 0;
  Device device_;
};

}  // namespace optserve
