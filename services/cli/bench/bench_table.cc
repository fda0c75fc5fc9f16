#include "cli/bench/bench_table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>

namespace optserve::cli {
namespace {

using workload::BenchKind;
using workload::BenchSpec;

std::string fixed(double value, int decimals) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", decimals, value);
  return text.data();
}

std::string right(const std::string& text, size_t columns) {
  return std::string(text.size() < columns ? columns - text.size() : 0, ' ') + text;
}

// What differs from the defaults.
std::string sampling_words(const sampling::SamplingParams& sampling) {
  std::string words = sampling.is_greedy() ? "greedy" : "temperature " + figure(sampling.temperature);
  const sampling::SamplingParams defaults;
  std::map<std::string_view, double> usual;
  sampling::for_each_parameter(defaults, [&usual](const sampling::ParameterInfo& info, auto value) {
    usual[info.name] = static_cast<double>(value);
  });
  sampling::for_each_parameter(sampling, [&](const sampling::ParameterInfo& info, auto value) {
    const std::string_view name = info.name;
    const auto number = static_cast<double>(value);
    if (name == "temperature" || name == "seed" || name == "ignore_eos" || number == usual[name]) return;
    words += ", " + std::string(name) + " " + figure(number);
  });
  return words;
}

std::string random_words(const BenchResult& result) {
  return "random " + (result.random_format.empty() ? "" : result.random_format + " ") + "weights";
}

std::string heading(const BenchResult& result) {
  const BenchSpec& spec = result.spec;
  std::string text = result.model + (result.random_weights ? " (" + random_words(result) + ")" : "");
  if (!result.dtype.empty()) text += ", " + dtype_label(result.dtype);
  if (result.world > 0) text += ", " + std::to_string(result.world) + (result.world == 1 ? " rank" : " ranks");
  text += result.through == "engine" ? ", straight on the engine" : ", through the pipeline";
  if (!result.device.empty()) text += ": " + result.device;
  text += "\n";
  if (spec.kind == BenchKind::kThroughput) text += std::to_string(spec.num_requests) + " requests at once, ";
  const char* about = spec.mixed_lengths ? "about " : "";
  text += std::string("prompts of ") + about + std::to_string(spec.input_tokens) + " tokens, " + about +
          std::to_string(spec.output_tokens) + " new tokens, " + sampling_words(spec.sampling) + "\n";
  return text;
}

std::string latency_rows(const BenchResult& result) {
  std::string text = " batch    ms/token         (min - max)         QPS    tokens/s\n";
  for (const BenchMeasurement& measurement : result.measurements) {
    text += right(std::to_string(measurement.batch), 6);
    if (!measurement.fits) {
      text += "    does not fit: " + measurement.reason + "\n";
      continue;
    }
    const LatencyFigures figures = latency_figures(measurement, result.spec.output_tokens);
    const std::string range = "(" + figure(figures.ms_per_token.min) + " - " + figure(figures.ms_per_token.max) + ")";
    text += right(figure(figures.ms_per_token.median), 12) + right(range, 20) + right(figure(figures.qps), 12) +
            right(figure(figures.tokens_per_second), 12) + "\n";
    if (!measurement.note.empty()) text += "        " + measurement.note + "\n";
  }
  const std::string tokens = std::to_string(result.spec.output_tokens);
  return text + "ms/token = whole time / " + tokens + ", QPS = batch / whole time; the median of " +
         std::to_string(result.spec.repeats) + (result.spec.repeats == 1 ? " run\n" : " runs\n");
}

std::string throughput_rows(const BenchResult& result) {
  std::string text;
  for (const BenchMeasurement& measurement : result.measurements) {
    if (!measurement.fits) return "does not fit: " + measurement.reason + "\n";
    const ThroughputFigures figures = throughput_figures(measurement, result.spec.num_requests);
    const auto line = [&text](const std::string& name, const std::string& value) {
      text += name + std::string(name.size() < 28 ? 28 - name.size() : 0, ' ') + value + "\n";
    };
    line("Throughput:", figure(figures.requests_per_second) + " requests/s, " +
                            figure(figures.total_tokens_per_second) + " total tokens/s, " +
                            figure(figures.output_tokens_per_second) + " output tokens/s");
    line("Total num prompt tokens:", std::to_string(measurement.input_tokens));
    line("Total num output tokens:", std::to_string(measurement.output_tokens));
    line("Whole time:", figure(figures.seconds.median) + " s (" + figure(figures.seconds.min) + " - " +
                            figure(figures.seconds.max) + "), the median of " +
                            std::to_string(measurement.seconds.size()));
    if (measurement.device) line("Device idle between steps:", figure(*measurement.idle_share() * 100) + " %");
    if (measurement.preemptions > 0) line("Preemptions:", std::to_string(measurement.preemptions));
  }
  return text;
}

}  // namespace

std::string figure(double value) {
  if (!std::isfinite(value)) return "-";
  if (value == 0) return "0";
  constexpr int kDigits = 4;
  const int before = static_cast<int>(std::floor(std::log10(std::fabs(value)))) + 1;
  return fixed(value, std::clamp(kDigits - before, 0, 9));
}

std::string bench_table(const BenchResult& result) {
  std::string text = heading(result);
  text += result.spec.kind == BenchKind::kLatency ? latency_rows(result) : throughput_rows(result);
  if (!result.complete) text += "The benchmark was ended early: what is missing was not measured.\n";
  return text;
}

}  // namespace optserve::cli
