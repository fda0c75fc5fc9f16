// The series of a plot: measured ones, from result files of optserve and of other engines, and published ones.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "cli/bench/bench_result.h"

namespace optserve::cli {

struct PlotPoint {
  int batch = 0;
  double ms_per_token = 0;
  double qps = 0;
};

struct PlotSeries {
  std::string label;
  std::string device;  // that it was measured on, in words; empty: not known
  std::string source;  // of published figures, in words; empty: measured
  int input_tokens = 0;
  int output_tokens = 0;
  std::vector<PlotPoint> points;  // in the order of their batches, each batch once

  bool is_published() const { return !source.empty(); }
};

// Refuses a result without a measured batch, and that of a throughput benchmark, which has no batches.
Result<PlotSeries> series_of(const BenchResult& result);

// Reads a file of `optserve bench latency --json`, or lines of JSON with the figures of another engine. Each line has
// model, batch, ms_per_token and qps, and where they are known engine (by default the file's name), dtype, int8, tp, in
// and out (by default 4 and 256 tokens) and static. Lines of the same engine, model, type and size make one series.
Result<std::vector<PlotSeries>> read_series(const std::string& path);

// The same lines, after a first line {"source": "..."} that names the publication.
Result<std::vector<PlotSeries>> read_published_series(const std::string& path);

}  // namespace optserve::cli
