#include "tensor/buffer.h"

namespace optserve {

Tensor Buffer::view(DType dtype, std::initializer_list<int64_t> shape) const {
  const Tensor view(data(), dtype, shape, device_);
  if (view.bytes() > bytes_) {
    check_failed(view.describe() + " does not fit a buffer of " + std::to_string(bytes_) + " bytes",
                 std::source_location::current());
  }
  return view;
}

}  // namespace optserve
