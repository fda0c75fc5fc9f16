// What a launch needs to know of the device. It is checked before a kernel is chosen: a kernel that does not fit the
// device is not a candidate.
#pragma once

namespace optserve::kernels {

struct DeviceLimits {
  int multiprocessors = 0;
  int shared_bytes_max = 0;    // of a block
  int compute_capability = 0;  // 90 is Hopper
};

}  // namespace optserve::kernels
