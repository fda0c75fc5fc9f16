// The result of a benchmark: its measurements, the figures that follow from them, and the JSON file that keeps them.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "cli/bench/device_usage.h"
#include "workload/bench_spec.h"

namespace optserve::cli {

// The runs of one batch, or of one throughput benchmark (batch 0).
struct BenchMeasurement {
  int32_t batch = 0;
  bool fits = true;
  std::string reason;           // why it does not fit
  std::vector<double> seconds;  // whole time of each run
  int64_t input_tokens = 0;     // of all requests of one run
  int64_t output_tokens = 0;
  int64_t steps = 0;  // of the engine; 0: not known
  int64_t preemptions = 0;
  std::optional<DeviceUsage> device;  // of rank 0 in the runs that count; nothing if not known
  std::string note;                   // a caution about the figures; usually empty

  // The share of the time from the first step to the last in which the device was idle.
  std::optional<double> idle_share() const {
    return device ? std::optional(device->idle_ms / (device->busy_ms + device->idle_ms)) : std::nullopt;
  }
};

struct BenchResult {
  workload::BenchSpec spec;
  std::string through = "engine";  // or pipeline
  std::string model;
  std::string dtype;   // of the computation; empty: not known
  std::string device;  // in words
  int world = 1;       // ranks that share the model; 0: not known
  bool random_weights = false;
  std::string random_format{};  // of their large matrices; empty: plain
  std::string version;
  std::string date;  // UTC, ISO 8601
  std::string command;
  nlohmann::json machine = nlohmann::json::object();
  nlohmann::json engine = nlohmann::json::object();  // sizes that the engine ran with
  bool complete = false;
  std::vector<BenchMeasurement> measurements;
};

// Reads a measurement from a result file or an event. Throws json::exception if a field is missing, Error for times
// that cannot be.
BenchMeasurement read_measurement(const nlohmann::json& entry);

struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;
};
Spread spread_of(std::vector<double> values);  // at least one

// Latency = whole time / new tokens of one request, and queries per second = batch / whole time, as Metaseq's page on
// FasterTransformer defines them. They are those of the median run; the latency has those of the fastest and slowest
// run too.
struct LatencyFigures {
  Spread ms_per_token;
  double qps = 0;
  double tokens_per_second = 0;
};
LatencyFigures latency_figures(const BenchMeasurement& measurement, int32_t output_tokens);

struct ThroughputFigures {
  Spread seconds;
  double requests_per_second = 0;
  double output_tokens_per_second = 0;
  double total_tokens_per_second = 0;  // with those of the prompts
};
ThroughputFigures throughput_figures(const BenchMeasurement& measurement, int32_t num_requests);

// "fp16" for "F16": as people write it.
std::string dtype_label(const std::string& dtype);

nlohmann::json to_json(const BenchResult& result);
Result<BenchResult> bench_result_from_json(const nlohmann::json& root);

}  // namespace optserve::cli
