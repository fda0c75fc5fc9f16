#include "cli/plot/bench_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "cli/bench/bench_table.h"
#include "cli/plot/svg.h"

namespace optserve::cli {
namespace {

// Paul Tol's "bright" palette and black, which people with any colour vision tell apart.
constexpr std::array<const char*, 7> kColors = {"#4477aa", "#ee6677", "#228833", "#aa3377",
                                                "#ccbb44", "#66ccee", "#222222"};
constexpr std::array<const char*, 2> kGreys = {"#8c8c8c", "#5a5a5a"};

constexpr double kWidth = 1280;
constexpr double kPanelTop = 106;
constexpr double kPanelHeight = 420;
constexpr double kPanelWidth = 536;
constexpr double kLeftPanel = 74;
constexpr double kRightPanel = 714;
constexpr double kMargin = 40;
constexpr double kLegendTop = kPanelTop + kPanelHeight + 78;
constexpr double kLegendRow = 22;
constexpr double kLegendSample = 44;
constexpr double kLegendSize = 13;
constexpr double kLetter = 0.56;  // mean width of a letter in its font size, on the wide side

// A logarithmic axis between two values.
class Axis {
 public:
  Axis(double low, double high, double from, double to) : low_(low), high_(high), from_(from), to_(to) {}
  double place(double value) const {
    return from_ + (to_ - from_) * (std::log(value) - std::log(low_)) / (std::log(high_) - std::log(low_));
  }
  double low() const { return low_; }
  double high() const { return high_; }

 private:
  double low_, high_, from_, to_;
};

// 1, 2 and 5 times powers of ten that enclose the values.
std::vector<double> steps_around(double low, double high) {
  std::vector<double> steps;
  for (int power = static_cast<int>(std::floor(std::log10(low))); std::pow(10, power) <= high * 10; ++power) {
    for (const double digit : {1.0, 2.0, 5.0}) steps.push_back(digit * std::pow(10, power));
  }
  while (steps.size() > 2 && steps[1] <= low) steps.erase(steps.begin());
  while (steps.size() > 2 && steps[steps.size() - 2] >= high) steps.pop_back();
  return steps;
}

bool is_decade(double value) {
  const double power = std::log10(value);
  return std::fabs(power - std::round(power)) < 1e-6;
}

std::string tick_text(double value) {
  std::string text = figure(value);
  if (text.find('.') == std::string::npos) return text;
  text.erase(text.find_last_not_of('0') + 1);
  if (text.ends_with('.')) text.pop_back();
  return text;
}

struct Look {
  SvgStroke stroke;
  SvgMarker marker = SvgMarker::kCircle;
  bool filled = true;
};

std::vector<Look> looks_of(const std::vector<PlotSeries>& series) {
  std::vector<Look> looks;
  size_t measured = 0, published = 0;
  for (const PlotSeries& one : series) {
    if (one.is_published()) {
      const bool large = one.label.find("175b") != std::string::npos;
      looks.push_back({{kGreys[large ? 1 : 0], 1.4, "5 4"}, static_cast<SvgMarker>(published % kSvgMarkers), false});
      ++published;
    } else {
      // Markers move on a step for each round of colours, so that 42 series look different.
      const auto marker = static_cast<SvgMarker>((measured + measured / kColors.size()) % kSvgMarkers);
      looks.push_back({{kColors[measured % kColors.size()], 2.2, {}}, marker, true});
      ++measured;
    }
  }
  return looks;
}

class Panel {
 public:
  Panel(double left, std::string title, double PlotPoint::*value)
      : left_(left), title_(std::move(title)), value_(value) {}

  void draw(SvgDrawing& svg, const std::vector<PlotSeries>& series, const std::vector<Look>& looks) const {
    const Axis x = batch_axis(series);
    const std::vector<double> ticks = value_ticks(series);
    const Axis y(ticks.front(), ticks.back(), kPanelTop + kPanelHeight, kPanelTop);
    svg.text({left_, kPanelTop - 12}, title_, {14, "start", "#222222", true});
    draw_grid(svg, x, y, ticks);
    // Published lines go below, whatever their order in the legend.
    for (const bool published : {true, false}) {
      for (size_t i = 0; i < series.size(); ++i) {
        if (series[i].is_published() == published) draw_series(svg, series[i], looks[i], x, y);
      }
    }
  }

 private:
  Axis batch_axis(const std::vector<PlotSeries>& series) const {
    int low = std::numeric_limits<int>::max(), high = 1;
    for (const PlotSeries& one : series) {
      low = std::min(low, one.points.front().batch);
      high = std::max(high, one.points.back().batch);
    }
    constexpr double kRoom = 1.3;  // beside the first and the last point
    return {low / kRoom, high * kRoom, left_, left_ + kPanelWidth};
  }

  std::vector<double> value_ticks(const std::vector<PlotSeries>& series) const {
    double low = std::numeric_limits<double>::max(), high = 0;
    for (const PlotSeries& one : series) {
      for (const PlotPoint& point : one.points) {
        low = std::min(low, point.*value_);
        high = std::max(high, point.*value_);
      }
    }
    return steps_around(low / 1.05, high * 1.05);
  }

  void draw_grid(SvgDrawing& svg, const Axis& x, const Axis& y, const std::vector<double>& ticks) const {
    const SvgStroke grid{"#e6e6e6", 1, {}}, strong{"#d0d0d0", 1, {}};
    const double bottom = kPanelTop + kPanelHeight;
    const bool crowded = ticks.size() > 13;  // more than four decades: label the decades only
    for (const double tick : ticks) {
      const bool labelled = !crowded || is_decade(tick);
      svg.line({left_, y.place(tick)}, {left_ + kPanelWidth, y.place(tick)}, is_decade(tick) ? strong : grid);
      if (labelled) svg.text({left_ - 8, y.place(tick) + 4}, tick_text(tick), {12, "end"});
    }
    for (int batch = 1; batch <= x.high(); batch *= 2) {
      if (batch < x.low()) continue;
      svg.line({x.place(batch), kPanelTop}, {x.place(batch), bottom}, grid);
      svg.text({x.place(batch), bottom + 18}, std::to_string(batch), {12, "middle"});
    }
    svg.rectangle({left_, kPanelTop}, kPanelWidth, kPanelHeight, {"#888888", 1, {}}, "none");
    svg.text({left_ + kPanelWidth / 2, bottom + 40}, "batch size", {13, "middle"});
  }

  void draw_series(SvgDrawing& svg, const PlotSeries& series, const Look& look, const Axis& x, const Axis& y) const {
    std::vector<SvgPoint> places;
    for (const PlotPoint& point : series.points) places.push_back({x.place(point.batch), y.place(point.*value_)});
    svg.begin_group(series.label);
    svg.polyline(places, look.stroke);
    for (size_t i = 0; i < places.size(); ++i) {
      const PlotPoint& point = series.points[i];
      const std::string tooltip = series.label + ", batch " + std::to_string(point.batch) + ": " +
                                  figure(point.ms_per_token) + " ms/token, " + figure(point.qps) + " QPS";
      svg.marker(look.marker, places[i], look.stroke, look.filled, tooltip);
    }
    svg.end_group();
  }

  double left_;
  std::string title_;
  double PlotPoint::*value_;
};

// One kind of series, in as many columns as their labels allow.
struct LegendBlock {
  std::string heading;
  std::vector<size_t> members;
  int columns = 1;
  double height() const {
    const auto rows = (static_cast<int>(members.size()) + columns - 1) / columns;
    return members.empty() ? 0 : kLegendRow * (rows + 1) + 14;
  }
};

LegendBlock legend_block(std::string heading, const std::vector<PlotSeries>& series, bool published) {
  LegendBlock block{std::move(heading), {}, 1};
  size_t letters = 1;
  for (size_t i = 0; i < series.size(); ++i) {
    if (series[i].is_published() != published) continue;
    block.members.push_back(i);
    letters = std::max(letters, series[i].label.size());
  }
  const double column = kLegendSample + 30 + static_cast<double>(letters) * kLegendSize * kLetter;
  block.columns = std::clamp(static_cast<int>((kWidth - 2 * kMargin) / column), 1, 6);
  return block;
}

void draw_legend(SvgDrawing& svg, const LegendBlock& block, double top, const std::vector<PlotSeries>& series,
                 const std::vector<Look>& looks) {
  if (block.members.empty()) return;
  svg.text({kMargin, top}, block.heading, {kLegendSize, "start", "#222222", true});
  const double column = (kWidth - 2 * kMargin) / block.columns;
  for (size_t i = 0; i < block.members.size(); ++i) {
    const size_t member = block.members[i];
    const double x = kMargin + column * static_cast<double>(i % static_cast<size_t>(block.columns));
    const double y = top + kLegendRow * static_cast<double>(1 + i / static_cast<size_t>(block.columns));
    const double middle = y - 4;
    svg.line({x, middle}, {x + kLegendSample - 8, middle}, looks[member].stroke);
    svg.marker(looks[member].marker, {x + (kLegendSample - 8) / 2, middle}, looks[member].stroke, looks[member].filled,
               {});
    svg.text({x + kLegendSample, y}, series[member].label, {kLegendSize});
  }
}

std::string question_of(const PlotSeries& series) {
  return "prompts of " + std::to_string(series.input_tokens) + " tokens, " + std::to_string(series.output_tokens) +
         " new tokens";
}

std::string shortened(const std::string& text, size_t letters) {
  return text.size() <= letters ? text : text.substr(0, letters - 3) + "...";
}

// Says what the measured series ran on: once if it is the same for all, else in the labels of those that know it.
std::string name_devices(std::vector<PlotSeries>& series) {
  constexpr size_t kHeadingLetters = 130;
  constexpr size_t kLabelLetters = 36;
  const PlotSeries* first = nullptr;
  bool same = true;
  for (const PlotSeries& one : series) {
    if (one.is_published()) continue;
    if (first == nullptr) first = &one;
    same = same && one.device == first->device;
  }
  if (first == nullptr || (same && first->device.empty())) return "Measured";
  if (same) return shortened("Measured on " + first->device, kHeadingLetters);
  for (PlotSeries& one : series) {
    if (!one.device.empty()) one.label += " [" + shortened(one.device, kLabelLetters) + "]";
  }
  return "Measured";
}

// Describes in words where published figures come from; empty if there are none.
std::string source_of(const std::vector<PlotSeries>& series) {
  const auto published = std::find_if(series.begin(), series.end(), [](const auto& one) { return one.is_published(); });
  return published == series.end() ? "" : published->source;
}

std::string subtitle_of(const std::vector<PlotSeries>& series) {
  const bool same = std::all_of(series.begin(), series.end(),
                                [&](const PlotSeries& one) { return question_of(one) == question_of(series.front()); });
  return (same ? question_of(series.front()) : std::string("different lengths, see the legend")) +
         "; latency = whole time / new tokens, QPS = batch / whole time";
}

}  // namespace

std::vector<PlotSeries> with_published(const std::vector<PlotSeries>& measured,
                                       const std::vector<PlotSeries>& published) {
  std::vector<PlotSeries> all = measured;
  for (const PlotSeries& one : published) {
    const bool is_comparable = std::all_of(measured.begin(), measured.end(), [&one](const PlotSeries& other) {
      return other.input_tokens == one.input_tokens && other.output_tokens == one.output_tokens;
    });
    if (is_comparable) all.push_back(one);
  }
  return all;
}

std::string render_plot(const std::vector<PlotSeries>& given) {
  check(!given.empty(), "a picture of nothing");
  std::vector<PlotSeries> series = given;
  const std::string subtitle = subtitle_of(series);
  if (subtitle.starts_with("different")) {
    for (PlotSeries& one : series) {
      one.label += ", " + std::to_string(one.input_tokens) + " + " + std::to_string(one.output_tokens) + " tokens";
    }
  }
  for (const PlotSeries& one : series) check(!one.points.empty(), "a series without points");
  const std::string heading = name_devices(series);
  const std::vector<Look> looks = looks_of(series);
  const LegendBlock measured = legend_block(heading, series, false);
  const LegendBlock published = legend_block("Published: " + source_of(series), series, true);
  SvgDrawing svg(kWidth, kLegendTop + measured.height() + published.height());
  svg.text({kMargin, 36}, "OPT throughput and latency by batch size", {20, "start", "#111111", true});
  svg.text({kMargin, 58}, subtitle, {13, "start", "#555555"});
  Panel(kLeftPanel, "Throughput, queries per second", &PlotPoint::qps).draw(svg, series, looks);
  Panel(kRightPanel, "Latency, ms per token", &PlotPoint::ms_per_token).draw(svg, series, looks);
  draw_legend(svg, measured, kLegendTop, series, looks);
  draw_legend(svg, published, kLegendTop + measured.height(), series, looks);
  return svg.finish();
}

}  // namespace optserve::cli
