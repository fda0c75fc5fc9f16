#include "cli/bench/device_usage.h"

#include <charconv>

namespace optserve::cli {
namespace {

// The value of the first metric with this name, in the text format of Prometheus.
std::optional<double> metric_value(std::string_view metrics, std::string_view name) {
  while (!metrics.empty()) {
    const size_t end = metrics.find('\n');
    const std::string_view line = metrics.substr(0, end);
    metrics.remove_prefix(end == std::string_view::npos ? metrics.size() : end + 1);
    if (!line.starts_with(name) || line.size() <= name.size()) continue;
    const size_t labels_end = line[name.size()] == '{' ? line.rfind('}') : name.size() - 1;
    if (labels_end == std::string_view::npos || !line.substr(labels_end + 1).starts_with(' ')) continue;
    const std::string_view text = line.substr(labels_end + 2);
    double value = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
    if (parsed.ec == std::errc() && value >= 0) return value;
  }
  return std::nullopt;
}

}  // namespace

std::optional<DeviceUsage> parse_device_usage(std::string_view metrics) {
  const auto busy = metric_value(metrics, "optserve_worker_device_busy_seconds_total");
  const auto idle = metric_value(metrics, "optserve_worker_device_idle_seconds_total");
  if (!busy || !idle) return std::nullopt;
  return DeviceUsage{*busy * 1000, *idle * 1000};
}

std::optional<DeviceUsage> usage_between(const std::optional<DeviceUsage>& before,
                                         const std::optional<DeviceUsage>& after) {
  if (!before || !after) return std::nullopt;
  const DeviceUsage between{after->busy_ms - before->busy_ms, after->idle_ms - before->idle_ms};
  if (between.busy_ms <= 0 || between.idle_ms < 0) return std::nullopt;
  return between;
}

}  // namespace optserve::cli
