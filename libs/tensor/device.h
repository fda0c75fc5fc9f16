// Where bytes live.
#pragma once

#include <string>

namespace optserve {

enum class DeviceKind { kCpu, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

}  // namespace optserve
