// Turns the events of a running benchmark into its result and into progress output.
#pragma once

#include <cstdio>
#include <functional>
#include <string>

#include "cli/bench/bench_result.h"

namespace optserve::cli {

// One event of a running benchmark; docs/benchmarks/README.md lists them.
using OnBenchEvent = std::function<void(const nlohmann::json& event)>;

// Prints a line for each measurement; on a terminal also a line that is rewritten in between.
class BenchProgress {
 public:
  BenchProgress(std::FILE* stream, bool is_terminal) : stream_(stream), is_terminal_(is_terminal) {}
  ~BenchProgress() { clear(); }
  BenchProgress(const BenchProgress&) = delete;
  BenchProgress& operator=(const BenchProgress&) = delete;

  void show(const std::string& line);   // terminals only
  void print(const std::string& line);  // a line that stays
  void clear();

 private:
  std::FILE* stream_;
  bool is_terminal_;
  size_t shown_ = 0;  // columns of the drawn line
};

class BenchRecorder {
 public:
  BenchRecorder(BenchResult& result, BenchProgress& progress) : result_(result), progress_(progress) {}
  // Throws Error for an unknown or incomplete event.
  void on_event(const nlohmann::json& event);

 private:
  void on_started(const nlohmann::json& event);
  void on_measurement(const nlohmann::json& event);

  BenchResult& result_;
  BenchProgress& progress_;
};

// "batch 64  run 2 of 3  [########------------]  41 %"
std::string progress_line(const nlohmann::json& event);
// "batch 64: 5.123 ms/token, 48.80 queries/s"
std::string measurement_line(const BenchMeasurement& measurement, const workload::BenchSpec& spec);

}  // namespace optserve::cli
