// How long a worker's device was busy and idle, according to the worker's metrics.
#pragma once

#include <optional>
#include <string_view>

namespace optserve::cli {

// Times since the worker started, or between two moments.
struct DeviceUsage {
  double busy_ms = 0;  // in steps
  double idle_ms = 0;  // between steps
};

// Parses the text of a worker's /metrics. Nothing if one of the two times is missing.
std::optional<DeviceUsage> parse_device_usage(std::string_view metrics);
// Nothing if one of them is missing, if the worker was replaced between them, or if its device does not measure the
// times (a CPU).
std::optional<DeviceUsage> usage_between(const std::optional<DeviceUsage>& before,
                                         const std::optional<DeviceUsage>& after);

}  // namespace optserve::cli
