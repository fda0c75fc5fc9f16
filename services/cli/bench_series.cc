#include "cli/bench_series.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "cli/published_points.h"

namespace optserve::cli {
namespace {

using nlohmann::json;

constexpr size_t kFileBytesMax = 64 << 20;

Refusal bad_series(const std::string& what) { return refuse(ErrorCode::kDataCorrupt, what); }

// Keeps points in the order of their batches; a batch that comes again replaces the earlier one.
void put_point(PlotSeries& series, const PlotPoint& point) {
  const auto place = std::lower_bound(series.points.begin(), series.points.end(), point.batch,
                                      [](const PlotPoint& one, int batch) { return one.batch < batch; });
  if (place != series.points.end() && place->batch == point.batch) {
    *place = point;
  } else {
    series.points.insert(place, point);
  }
}

std::string tp_label(int world) { return world > 1 ? " TP" + std::to_string(world) : ""; }

// "opt-30b" also for "30b", as some scripts write it.
std::string model_label(const std::string& model) {
  const bool bare = !model.empty() && model.front() >= '0' && model.front() <= '9';
  return bare ? "opt-" + model : model;
}

// Throws json::exception for a line that lacks what it must have.
PlotSeries read_line(const json& line, const std::string& engine) {
  PlotSeries series;
  const std::string dtype = line.value("int8", 0) != 0 ? "int8" : line.value("dtype", "");
  series.label = line.value("engine", engine) + " " + model_label(line.at("model").get<std::string>());
  if (line.value("static", false)) series.label += " static cache";
  if (!dtype.empty()) series.label += " " + dtype;
  series.label += tp_label(line.value("tp", 1));
  series.input_tokens = line.value("in", kPublishedInputTokens);
  series.output_tokens = line.value("out", kPublishedOutputTokens);
  series.points.push_back(
      {line.at("batch").get<int>(), line.at("ms_per_token").get<double>(), line.at("qps").get<double>()});
  const PlotPoint& point = series.points.front();
  if (point.batch < 1 || !(point.ms_per_token > 0) || !(point.qps > 0)) throw Error("figures must be above zero");
  return series;
}

Result<std::vector<PlotSeries>> read_lines(const std::string& text, const std::string& path) {
  const std::string engine = std::filesystem::path(path).stem().string();
  std::vector<PlotSeries> all;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    PlotSeries one;
    try {
      one = read_line(json::parse(line), engine);
    } catch (const std::exception& error) {
      return bad_series(path + ", line " + std::to_string(number) + ": " + error.what());
    }
    const auto same = std::find_if(all.begin(), all.end(), [&](const PlotSeries& other) {
      return other.label == one.label && other.input_tokens == one.input_tokens &&
             other.output_tokens == one.output_tokens;
    });
    if (same == all.end()) {
      all.push_back(std::move(one));
    } else {
      put_point(*same, one.points.front());
    }
  }
  if (all.empty()) return bad_series(path + ": no figures in it");
  return all;
}

}  // namespace

Result<PlotSeries> series_of(const BenchResult& result) {
  if (result.spec.kind != workload::BenchKind::kLatency)
    return bad_series("a throughput benchmark has no batches to draw; expected a result of 'optserve bench latency'");
  PlotSeries series;
  series.label = "optserve " + result.model;
  if (!result.dtype.empty()) series.label += " " + dtype_label(result.dtype);
  series.label += tp_label(result.world);
  series.device = result.device;
  if (result.through != "engine") series.label += " (" + result.through + ")";
  series.input_tokens = result.spec.input_tokens;
  series.output_tokens = result.spec.output_tokens;
  for (const BenchMeasurement& measurement : result.measurements) {
    if (!measurement.fits) continue;
    const LatencyFigures figures = latency_figures(measurement, result.spec.output_tokens);
    put_point(series, {measurement.batch, figures.ms_per_token.median, figures.qps});
  }
  if (series.points.empty()) return bad_series("no batch of " + series.label + " was measured");
  return series;
}

Result<std::vector<PlotSeries>> read_series(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return refuse(ErrorCode::kNotFound, errno_error("open " + path).what());
  std::error_code error;
  if (const auto bytes = std::filesystem::file_size(path, error); error || bytes > kFileBytesMax)
    return bad_series(path + ": expected a file of at most " + std::to_string(kFileBytesMax) + " bytes");
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const json root = json::parse(text, nullptr, false);
  if (!root.is_object() || !root.contains("format")) return read_lines(text, path);
  auto result = bench_result_from_json(root);
  if (!result.ok()) return refuse(result.refusal().code, path + ": " + result.refusal().message);
  auto series = series_of(result.value());
  if (!series.ok()) return refuse(series.refusal().code, path + ": " + series.refusal().message);
  return std::vector<PlotSeries>{std::move(series).value()};
}

std::vector<PlotSeries> published_plot_series() {
  std::vector<PlotSeries> all;
  for (const PublishedSeries& published : published_series()) {
    PlotSeries& series = all.emplace_back();
    series.label =
        std::string(published.model) + " " + std::string(published.weights) + " MP" + std::to_string(published.world);
    series.is_published = true;
    series.input_tokens = kPublishedInputTokens;
    series.output_tokens = kPublishedOutputTokens;
    for (const PublishedPoint& point : published.points)
      series.points.push_back({point.batch, point.ms_per_token, point.qps});
  }
  return all;
}

}  // namespace optserve::cli
