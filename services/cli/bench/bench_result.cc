#include "cli/bench/bench_result.h"

#include <algorithm>

#include "base/check.h"

namespace optserve::cli {
namespace {

using nlohmann::json;
using workload::BenchKind;

constexpr const char* kFormat = "optserve-bench";
constexpr int kFormatVersion = 1;

json measurement_json(const BenchMeasurement& measurement, const workload::BenchSpec& spec) {
  json entry = {{"fits", measurement.fits}};
  if (measurement.batch > 0) entry["batch"] = measurement.batch;
  if (!measurement.fits) {
    entry["reason"] = measurement.reason;
    return entry;
  }
  entry.update({{"seconds", measurement.seconds},
                {"input_tokens", measurement.input_tokens},
                {"output_tokens", measurement.output_tokens}});
  if (measurement.steps > 0) entry.update({{"steps", measurement.steps}, {"preemptions", measurement.preemptions}});
  if (measurement.device) {
    entry.update({{"device_busy_ms", measurement.device->busy_ms},
                  {"device_idle_ms", measurement.device->idle_ms},
                  {"device_idle_share", *measurement.idle_share()}});
  }
  if (!measurement.note.empty()) entry["note"] = measurement.note;
  if (spec.kind == BenchKind::kLatency) {
    const LatencyFigures figures = latency_figures(measurement, spec.output_tokens);
    entry.update({{"ms_per_token", figures.ms_per_token.median},
                  {"ms_per_token_min", figures.ms_per_token.min},
                  {"ms_per_token_max", figures.ms_per_token.max},
                  {"qps", figures.qps},
                  {"tokens_per_second", figures.tokens_per_second}});
  } else {
    const ThroughputFigures figures = throughput_figures(measurement, spec.num_requests);
    entry.update({{"requests_per_second", figures.requests_per_second},
                  {"output_tokens_per_second", figures.output_tokens_per_second},
                  {"total_tokens_per_second", figures.total_tokens_per_second}});
  }
  return entry;
}

// Nothing if the times are missing or zero.
std::optional<DeviceUsage> read_device_usage(const json& entry) {
  const DeviceUsage usage{entry.value("device_busy_ms", 0.0), entry.value("device_idle_ms", 0.0)};
  return usage.busy_ms > 0 && usage.idle_ms >= 0 ? std::optional(usage) : std::nullopt;
}

}  // namespace

BenchMeasurement read_measurement(const json& entry) {
  BenchMeasurement measurement;
  measurement.batch = entry.value("batch", 0);
  measurement.fits = entry.at("fits").get<bool>();
  if (!measurement.fits) {
    measurement.reason = entry.value("reason", "");
    return measurement;
  }
  measurement.seconds = entry.at("seconds").get<std::vector<double>>();
  if (measurement.seconds.empty()) throw Error("a measurement has no seconds");
  for (const double seconds : measurement.seconds) {
    if (!(seconds > 0)) throw Error("a measurement has times that are not above zero");
  }
  measurement.input_tokens = entry.at("input_tokens").get<int64_t>();
  measurement.output_tokens = entry.at("output_tokens").get<int64_t>();
  measurement.steps = entry.value("steps", int64_t{0});
  measurement.preemptions = entry.value("preemptions", int64_t{0});
  measurement.device = read_device_usage(entry);
  measurement.note = entry.value("note", "");
  return measurement;
}

Spread spread_of(std::vector<double> values) {
  check(!values.empty(), "spread of nothing");
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  const double median = values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
  return {median, values.front(), values.back()};
}

LatencyFigures latency_figures(const BenchMeasurement& measurement, int32_t output_tokens) {
  const Spread seconds = spread_of(measurement.seconds);
  const double ms = 1000.0 / output_tokens;
  LatencyFigures figures;
  figures.ms_per_token = {seconds.median * ms, seconds.min * ms, seconds.max * ms};
  figures.qps = measurement.batch / seconds.median;
  figures.tokens_per_second = figures.qps * output_tokens;
  return figures;
}

ThroughputFigures throughput_figures(const BenchMeasurement& measurement, int32_t num_requests) {
  ThroughputFigures figures;
  figures.seconds = spread_of(measurement.seconds);
  figures.requests_per_second = num_requests / figures.seconds.median;
  const auto output = static_cast<double>(measurement.output_tokens);
  figures.output_tokens_per_second = output / figures.seconds.median;
  figures.total_tokens_per_second = (output + static_cast<double>(measurement.input_tokens)) / figures.seconds.median;
  return figures;
}

std::string dtype_label(const std::string& dtype) {
  if (dtype.size() > 1 && dtype.front() == 'F') return "fp" + dtype.substr(1);
  std::string label = dtype;
  for (char& c : label) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return label;
}

json to_json(const BenchResult& result) {
  json root = {{"format", kFormat},
               {"format_version", kFormatVersion},
               {"through", result.through},
               {"model", result.model},
               {"random_weights", result.random_weights},
               {"random_format", result.random_format},
               {"dtype", result.dtype},
               {"device", result.device},
               {"world", result.world},
               {"version", result.version},
               {"date", result.date},
               {"command", result.command},
               {"machine", result.machine},
               {"engine", result.engine},
               {"complete", result.complete},
               {"settings", workload::to_json(result.spec)},
               {"measurements", json::array()}};
  for (const BenchMeasurement& measurement : result.measurements) {
    root["measurements"].push_back(measurement_json(measurement, result.spec));
  }
  return root;
}

Result<BenchResult> bench_result_from_json(const json& root) {
  const auto bad_result = [](const std::string& what) { return refuse(ErrorCode::kDataCorrupt, what); };
  if (!root.is_object() || root.value("format", json()) != kFormat) {
    return bad_result("expected a result of 'optserve bench', found another JSON value");
  }
  if (root.value("format_version", json()) != kFormatVersion) {
    return bad_result("expected format_version " + std::to_string(kFormatVersion) + ", found " +
                      root.value("format_version", json()).dump());
  }
  try {
    auto spec = workload::bench_spec_from_json(root.at("settings"));
    if (!spec.ok()) return spec.refusal();
    BenchResult result;
    result.spec = std::move(spec).value();
    result.through = root.at("through").get<std::string>();
    result.model = root.at("model").get<std::string>();
    result.random_weights = root.value("random_weights", false);
    result.random_format = root.value("random_format", std::string());
    result.dtype = root.value("dtype", "");
    result.device = root.value("device", "");
    result.world = root.at("world").get<int>();
    result.version = root.value("version", "");
    result.date = root.value("date", "");
    result.command = root.value("command", "");
    result.machine = root.value("machine", json::object());
    result.engine = root.value("engine", json::object());
    result.complete = root.value("complete", false);
    for (const json& entry : root.at("measurements")) result.measurements.push_back(read_measurement(entry));
    return result;
  } catch (const json::exception& error) {
    return bad_result(error.what());
  } catch (const Error& error) {
    return bad_result(error.what());
  }
}

}  // namespace optserve::cli
