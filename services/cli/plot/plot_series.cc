#include "cli/plot/plot_series.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

namespace optserve::cli {
namespace {

using nlohmann::json;

constexpr size_t kFileBytesMax = 64 << 20;
constexpr int kInputTokens = 4;  // of `optserve bench latency`, unless a file says otherwise
constexpr int kOutputTokens = 256;

Refusal bad_figures(const std::string& what) { return refuse(ErrorCode::kDataCorrupt, what); }

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

// Throws json::exception for a line without a required field, Error for figures that cannot be.
PlotSeries read_line(const json& line, const std::string& default_engine) {
  PlotSeries series;
  const std::string dtype = line.value("int8", 0) != 0 ? "int8" : line.value("dtype", "");
  const std::string engine = line.value("engine", default_engine);
  series.label = (engine.empty() ? "" : engine + " ") + model_label(line.at("model").get<std::string>());
  if (line.value("static", false)) series.label += " static cache";
  if (!dtype.empty()) series.label += " " + dtype;
  series.label += tp_label(line.value("tp", 1));
  series.input_tokens = line.value("in", kInputTokens);
  series.output_tokens = line.value("out", kOutputTokens);
  series.points.push_back(
      {line.at("batch").get<int>(), line.at("ms_per_token").get<double>(), line.at("qps").get<double>()});
  const PlotPoint& point = series.points.front();
  if (point.batch < 1 || !(point.ms_per_token > 0) || !(point.qps > 0)) throw Error("figures must be above zero");
  return series;
}

Result<std::string> read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return refuse(ErrorCode::kNotFound, errno_error("open " + path).what());
  std::error_code error;
  if (const auto bytes = std::filesystem::file_size(path, error); error || bytes > kFileBytesMax) {
    return bad_figures(path + ": expected a file of at most " + std::to_string(kFileBytesMax) + " bytes");
  }
  return std::string((std::istreambuf_iterator<char>(file)), {});
}

// Where lines stand, and the engine of those that name none.
struct LinesOrigin {
  std::string path;
  int first_line = 1;
  std::string engine;
};

Result<std::vector<PlotSeries>> read_lines(const std::string& text, const LinesOrigin& origin) {
  std::vector<PlotSeries> all;
  std::istringstream lines(text);
  std::string line;
  for (int number = origin.first_line; std::getline(lines, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    PlotSeries one;
    try {
      one = read_line(json::parse(line), origin.engine);
    } catch (const std::exception& error) {
      return bad_figures(origin.path + ", line " + std::to_string(number) + ": " + error.what());
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
  if (all.empty()) return bad_figures(origin.path + ": there are no figures in it");
  return all;
}

}  // namespace

Result<PlotSeries> series_of(const BenchResult& result) {
  if (result.spec.kind != workload::BenchKind::kLatency) {
    return bad_figures("a throughput benchmark has no batches to draw; expected a result of 'optserve bench latency'");
  }
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
  if (series.points.empty()) return bad_figures("no batch of " + series.label + " was measured");
  return series;
}

Result<std::vector<PlotSeries>> read_series(const std::string& path) {
  const Result<std::string> text = read_text(path);
  if (!text.ok()) return text.refusal();
  const json root = json::parse(text.value(), nullptr, false);
  if (!root.is_object() || !root.contains("format")) {
    return read_lines(text.value(), {path, 1, std::filesystem::path(path).stem().string()});
  }
  auto result = bench_result_from_json(root);
  if (!result.ok()) return refuse(result.refusal().code, path + ": " + result.refusal().message);
  auto series = series_of(result.value());
  if (!series.ok()) return refuse(series.refusal().code, path + ": " + series.refusal().message);
  return std::vector<PlotSeries>{std::move(series).value()};
}

Result<std::vector<PlotSeries>> read_published_series(const std::string& path) {
  Result<std::string> text = read_text(path);
  if (!text.ok()) return text.refusal();
  const size_t end = std::min(text.value().find('\n'), text.value().size());
  const json head = json::parse(text.value().substr(0, end), nullptr, false);
  if (!head.is_object() || !head.contains("source") || !head["source"].is_string() || head["source"] == "") {
    return bad_figures(path + ": expected a first line {\"source\": \"...\"} that names the publication");
  }
  auto all = read_lines(text.value().substr(end), {path, 1, ""});
  if (!all.ok()) return all.refusal();
  for (PlotSeries& series : all.value()) series.source = head["source"].get<std::string>();
  return all;
}

}  // namespace optserve::cli
