// Lines of a picture: measured ones from result files of ours and of other engines, and the published ones.
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
  bool is_published = false;
  int input_tokens = 0;
  int output_tokens = 0;
  std::vector<PlotPoint> points;  // by batch, each once
};

// Refuses a result without a measured batch, or of a throughput benchmark: that has no batches.
Result<PlotSeries> series_of(const BenchResult& result);

// A file of `optserve bench latency --json`, or lines of JSON as other engines' figures are kept: model, batch,
// ms_per_token and qps in each; engine (else the file's name), dtype, int8, tp, in, out and static where they are
// known. Lines of one engine, model, type and size make one series.
Result<std::vector<PlotSeries>> read_series(const std::string& path);

// All that is published.
std::vector<PlotSeries> published_plot_series();

}  // namespace optserve::cli
