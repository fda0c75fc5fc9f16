// What a launch needs to know of the device. Kernels ask before they are launched: what does not fit is no way to do
// it.
#pragma once

namespace optserve::kernels {

struct DeviceLimits {
  int multiprocessors = 0;
  int shared_bytes_max = 0;    // of a block
  int compute_capability = 0;  // 90 is Hopper
};

}  // namespace optserve::kernels
