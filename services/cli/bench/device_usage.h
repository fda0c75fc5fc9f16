// How long the device of a worker was busy and idle, by its metrics.
#pragma once

#include <optional>
#include <string_view>

namespace optserve::cli {

// Sums since the worker started, or between two moments.
struct DeviceUsage {
  double busy_ms = 0;  // in steps
  double idle_ms = 0;  // between steps
};

// From the text of a worker's /metrics; nothing if one of the two sums is not there.
std::optional<DeviceUsage> parse_device_usage(std::string_view metrics);
// Nothing if one of them is not known, the worker was replaced between them, or its device counts nothing (a CPU).
std::optional<DeviceUsage> usage_between(const std::optional<DeviceUsage>& before,
                                         const std::optional<DeviceUsage>& after);

}  // namespace optserve::cli
