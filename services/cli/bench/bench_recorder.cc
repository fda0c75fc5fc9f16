#include "cli/bench/bench_recorder.h"

#include <algorithm>

#include "cli/bench/bench_table.h"

namespace optserve::cli {
namespace {

using nlohmann::json;

constexpr int kBarColumns = 24;

}  // namespace

void BenchProgress::show(const std::string& line) {
  if (!is_terminal_) return;
  std::string padded = line;
  if (padded.size() < shown_) padded.append(shown_ - padded.size(), ' ');
  std::fprintf(stream_, "\r%s", padded.c_str());
  std::fflush(stream_);
  shown_ = line.size();
}

void BenchProgress::print(const std::string& line) {
  clear();
  std::fprintf(stream_, "%s\n", line.c_str());
  std::fflush(stream_);
}

void BenchProgress::clear() {
  if (shown_ > 0) std::fprintf(stream_, "\r%s\r", std::string(shown_, ' ').c_str());
  shown_ = 0;
}

std::string progress_line(const json& event) {
  const auto done = event.at("done").get<double>();
  const auto total = std::max(1.0, event.at("total").get<double>());
  const double share = std::clamp(done / total, 0.0, 1.0);
  const int filled = static_cast<int>(share * kBarColumns);
  std::string line;
  if (event.contains("batch")) line += "batch " + std::to_string(event["batch"].get<int>()) + "  ";
  line += event.at("warmup").get<bool>() ? "warm-up " : "run ";
  line += std::to_string(event.at("run").get<int>() + 1) + " of " + std::to_string(event.at("runs").get<int>());
  line += "  [" + std::string(filled, '#') + std::string(kBarColumns - filled, '-') + "]  ";
  return line + std::to_string(static_cast<int>(share * 100)) + " %";
}

std::string measurement_line(const BenchMeasurement& measurement, const workload::BenchSpec& spec) {
  if (spec.kind == workload::BenchKind::kThroughput) {
    if (!measurement.fits) return "does not fit: " + measurement.reason;
    const ThroughputFigures figures = throughput_figures(measurement, spec.num_requests);
    return figure(figures.requests_per_second) + " requests/s, " + figure(figures.output_tokens_per_second) +
           " output tokens/s";
  }
  const std::string batch = "batch " + std::to_string(measurement.batch) + ": ";
  if (!measurement.fits) return batch + "does not fit: " + measurement.reason;
  const LatencyFigures figures = latency_figures(measurement, spec.output_tokens);
  return batch + figure(figures.ms_per_token.median) + " ms/token, " + figure(figures.qps) + " queries/s";
}

void BenchRecorder::on_event(const json& event) {
  try {
    const std::string kind = event.at("event").get<std::string>();
    if (kind == "started") return on_started(event);
    if (kind == "progress") return progress_.show(progress_line(event));
    if (kind == "measurement") return on_measurement(event);
    if (kind == "finished") {
      result_.complete = event.at("complete").get<bool>();
      return progress_.clear();
    }
    throw Error("event '" + kind + "' is not known");
  } catch (const json::exception& error) {
    throw Error("event " + event.dump() + " of the benchmark: " + error.what());
  }
}

void BenchRecorder::on_started(const json& event) {
  result_.model = event.at("model").get<std::string>();
  result_.device = event.at("device").get<std::string>();
  result_.dtype = event.at("dtype").get<std::string>();
  result_.world = event.at("world").get<int>();
  result_.version = event.at("version").get<std::string>();
  for (const char* size : {"parameters", "max_sequences", "max_step_tokens", "kv_tokens"}) {
    if (event.contains(size)) result_.engine[size] = event[size];
  }
}

void BenchRecorder::on_measurement(const json& event) {
  result_.measurements.push_back(read_measurement(event));
  progress_.print(measurement_line(result_.measurements.back(), result_.spec));
}

}  // namespace optserve::cli
