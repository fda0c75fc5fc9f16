// GCC 12 sees uninitialised members in <regex> where a sanitizer instruments it.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include "cli/plot/bench_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <regex>

#include "cli/bench/scratch_folder.h"
#include "cli/plot/svg.h"

namespace optserve::cli {
namespace bench_plot_test {

using ::testing::HasSubstr;
using ::testing::Not;

PlotSeries series(const std::string& label, std::vector<PlotPoint> points) {
  return {label, "cpu", "", 4, 256, std::move(points)};
}

const std::string kPublishedFile = OPTSERVE_BENCHMARK_DATA "/fastertransformer-a100-published.jsonl";

std::vector<PlotSeries> published() { return read_published_series(kPublishedFile).value(); }

// Checks tags and attributes: empty if the text is well formed, else what is wrong. It knows only as much of XML as we
// write.
std::string xml_fault(const std::string& text) {
  static const std::regex kTag(
      R"(^<(/?)([a-z]+)((?: [a-zA-Z0-9:-]+="[^"<>&]*(?:&(?:amp|lt|gt|quot);[^"<>&]*)*")*)(/?)>)");
  std::vector<std::string> open;
  size_t at = text.find("?>\n") + 3;
  if (!text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")) return "no declaration";
  while (at < text.size()) {
    if (text[at] != '<') {
      if (text[at] == '>') return "a stray > at " + std::to_string(at);
      if (text[at] == '&' && !std::regex_search(text.substr(at, 6), std::regex("^&(amp|lt|gt|quot);"))) {
        return "a stray & at " + std::to_string(at);
      }
      ++at;
      continue;
    }
    std::smatch match;
    const std::string rest = text.substr(at, 20'000);
    if (!std::regex_search(rest, match, kTag)) return "no tag: " + rest.substr(0, 80);
    at += static_cast<size_t>(match.length());
    if (match[4].length() > 0) continue;
    if (match[1].length() == 0) {
      open.push_back(match[2]);
    } else if (open.empty() || open.back() != match[2]) {
      return "closes " + match[2].str();
    } else {
      open.pop_back();
    }
  }
  return open.empty() ? "" : "left open: " + open.back();
}

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

// Corners of all lines of figures, which must lie in one of the two frames.
std::vector<SvgPoint> polyline_points(const std::string& svg) {
  std::vector<SvgPoint> points;
  const std::regex line(R"re(<polyline points="([^"]*)")re"), pair("([-0-9.]+),([-0-9.]+)");
  for (std::sregex_iterator one(svg.begin(), svg.end(), line), end; one != end; ++one) {
    const std::string list = (*one)[1];
    for (std::sregex_iterator p(list.begin(), list.end(), pair); p != end; ++p) {
      points.push_back({std::stod((*p)[1]), std::stod((*p)[2])});
    }
  }
  return points;
}

struct Frame {
  double left, top, right, bottom;
  bool holds(SvgPoint point) const { return point.x > left && point.x < right && point.y > top && point.y < bottom; }
};

std::vector<Frame> frames(const std::string& svg) {
  std::vector<Frame> found;
  const std::string n = "=\"([0-9.]+)\" ";
  const std::regex rect("<rect x" + n + "y" + n + "width" + n + "height" + n + "fill=\"none\"");
  for (std::sregex_iterator one(svg.begin(), svg.end(), rect), end; one != end; ++one) {
    const double x = std::stod((*one)[1]), y = std::stod((*one)[2]);
    found.push_back({x, y, x + std::stod((*one)[3]), y + std::stod((*one)[4])});
  }
  return found;
}

void expect_good_picture(const std::vector<PlotSeries>& drawn) {
  const std::string svg = render_plot(drawn);
  EXPECT_EQ(xml_fault(svg), "");
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf\"")));
  const std::vector<Frame> both = frames(svg);
  ASSERT_EQ(both.size(), 2u);
  size_t expected = 0;
  for (const PlotSeries& one : drawn) {
    expected += 2 * one.points.size();
    EXPECT_EQ(count(svg, "<g data-name=\"" + xml_escaped(one.label) + "\">"), 2u) << one.label;
    EXPECT_GE(count(svg, ">" + xml_escaped(one.label)), 1u) << one.label;  // in the legend
  }
  const std::vector<SvgPoint> points = polyline_points(svg);
  EXPECT_EQ(points.size(), expected);
  for (const SvgPoint& point : points) {
    EXPECT_TRUE(both[0].holds(point) || both[1].holds(point)) << point.x << ", " << point.y;
  }
}

TEST(PublishedFigures, ObeyTheRuleThatBindsLatencyAndThroughput) {
  std::vector<std::string> labels;
  size_t points = 0;
  for (const PlotSeries& one : published()) {
    labels.push_back(one.label);
    EXPECT_EQ(one.input_tokens, 4) << one.label;
    EXPECT_EQ(one.output_tokens, 256) << one.label;
    int last = 0;
    for (const PlotPoint& point : one.points) {
      EXPECT_EQ(point.batch, last == 0 ? 1 : 2 * last) << one.label;
      last = point.batch;
      EXPECT_NEAR(point.qps * one.output_tokens * point.ms_per_token / 1000 / point.batch, 1, 0.021)
          << one.label << " at " << point.batch;
      ++points;
    }
  }
  EXPECT_THAT(labels, ::testing::ElementsAre("opt-30b fp16 TP2", "opt-30b int8 TP2", "opt-30b fp16 TP8",
                                             "opt-30b int8 TP8", "opt-175b fp16 TP8", "opt-175b int8 TP8"));
  EXPECT_EQ(points, 9u + 9 + 11 + 11 + 7 + 8);
}

TEST(PublishedFigures, MustNameTheirSource) {
  const ScratchFolder folder;
  const std::string path = folder.path() + "/file.jsonl";
  const auto refusal = [&path](const std::string& content) {
    std::ofstream(path) << content;
    const auto read = read_published_series(path);
    return read.ok() ? std::string("read") : read.refusal().message;
  };
  const std::string line = R"({"model": "opt-30b", "batch": 1, "ms_per_token": 9.0, "qps": 0.43})";
  EXPECT_EQ(refusal("{\"source\": \"a paper\"}\n" + line), "read");
  for (const std::string& head :
       {line, std::string(R"({"source": ""})"), std::string(R"({"source": 1})"), std::string()}) {
    EXPECT_THAT(refusal(head + "\n" + line), HasSubstr("expected a first line")) << head;
  }
  EXPECT_THAT(refusal("{\"source\": \"a paper\"}"), HasSubstr("no figures"));
  EXPECT_THAT(refusal("{\"source\": \"a paper\"}\n" + line + "\nnonsense"), HasSubstr("line 3"));
}

TEST(BenchPlot, DrawsEverySeriesInsideItsFrames) {
  expect_good_picture({series("one", {{1, 3.1, 1.27}, {2, 5.7, 1.37}, {1024, 103, 4.8}})});
  expect_good_picture(with_published({series("one", {{1, 0.15, 26}, {512, 1.05, 1900}})}, published()));
  std::vector<PlotSeries> many;
  for (int i = 0; i < 30; ++i) {
    many.push_back(
        series("series number " + std::to_string(i), {{1, 1.0 + i, 4.0 / (1 + i)}, {8, 2.0 + i, 16.0 / (1 + i)}}));
  }
  expect_good_picture(many);
}

TEST(BenchPlot, OnePointAndExtremesAreDrawnToo) {
  expect_good_picture({series("alone", {{1, 10, 0.390625}})});
  expect_good_picture({series("tiny and huge", {{1, 1e-6, 1e9}, {4096, 1e6, 1e-3}})});
  expect_good_picture({series("powers of ten", {{3, 1, 100}, {5, 10, 1}})});
}

TEST(BenchPlot, LabelsAreEscaped) {
  expect_good_picture({series("a <b> & \"c\"", {{1, 1, 1}})});
  EXPECT_EQ(xml_escaped("<&>\"\n"), "&lt;&amp;&gt;&quot;?");
  EXPECT_EQ(xml_escaped("\xff"), "?");
  EXPECT_EQ(xml_escaped("\xc3\xa4"), "\xc3\xa4");
}

TEST(BenchPlot, PublishedSeriesLookDifferentAndSayWhatTheyAre) {
  const std::string svg = render_plot(with_published({series("one", {{1, 3, 1}})}, published()));
  EXPECT_THAT(svg, HasSubstr("Published: FasterTransformer v5.3 on A100-80GB"));
  EXPECT_THAT(svg, HasSubstr("read off"));
  EXPECT_EQ(count(svg, "stroke-dasharray"), 6u * 3);  // a line in each panel and one in the legend
  EXPECT_THAT(svg, HasSubstr("Measured on cpu"));
}

TEST(BenchPlot, ADeviceIsNamedForTheSeriesThatRanOnIt) {
  PlotSeries other = series("other", {{1, 3, 1}});
  other.device = "";
  const std::string svg = render_plot({series("one", {{1, 3, 1}}), other});
  EXPECT_THAT(svg, Not(HasSubstr("Measured on")));
  EXPECT_THAT(svg, HasSubstr(">one [cpu]<"));
  EXPECT_THAT(svg, HasSubstr(">other<"));
}

TEST(BenchPlot, PublishedFiguresStandBesideTheSameQuestionOnly) {
  EXPECT_EQ(with_published({series("same", {{1, 3, 1}})}, published()).size(), 7u);
  PlotSeries other = series("other", {{1, 3, 1}});
  other.output_tokens = 8;
  EXPECT_EQ(with_published({other}, published()).size(), 1u);
  EXPECT_EQ(with_published({series("same", {{1, 3, 1}}), other}, published()).size(), 2u);
  const std::string svg = render_plot({series("same", {{1, 3, 1}}), other});
  EXPECT_THAT(svg, HasSubstr("other, 4 + 8 tokens"));
}

TEST(BenchSeries, ReadsResultsAndOtherEnginesLines) {
  const ScratchFolder folder;
  const std::string lines = folder.path() + "/other-engine.jsonl";
  const std::string ft = R"({"engine": "ft", "model": "opt-30b", "dtype": "fp16", "in": 4, "out": 256, )";
  std::ofstream(lines) << ft << R"("int8": 0, "tp": 2, "batch": 8, "ms_per_token": 10.0, "qps": 3.1})"
                       << "\n"
                       << ft << R"("int8": 0, "tp": 2, "batch": 1, "ms_per_token": 9.0, "qps": 0.43})"
                       << "\n\n"
                       << ft << R"("int8": 1, "tp": 1, "batch": 1, "ms_per_token": 9.0, "qps": 0.43})"
                       << "\n"
                       << R"({"model": "125m", "batch": 1, "static": true, "ms_per_token": 4.7, "qps": 0.8})";
  const auto read = read_series(lines);
  ASSERT_TRUE(read.ok()) << read.refusal().message;
  ASSERT_EQ(read.value().size(), 3u);
  EXPECT_EQ(read.value()[0].label, "ft opt-30b fp16 TP2");
  ASSERT_EQ(read.value()[0].points.size(), 2u);
  EXPECT_EQ(read.value()[0].points[0].batch, 1);
  EXPECT_EQ(read.value()[1].label, "ft opt-30b int8");
  EXPECT_EQ(read.value()[2].label, "other-engine opt-125m static cache");
}

TEST(BenchSeries, WhatCannotBeDrawnIsRefused) {
  const ScratchFolder folder;
  const std::string path = folder.path() + "/file.json";
  const auto refusal = [&path](const std::string& content) {
    std::ofstream(path) << content;
    const auto read = read_series(path);
    return read.ok() ? std::string("read") : read.refusal().message;
  };
  EXPECT_THAT(refusal(""), HasSubstr("no figures"));
  EXPECT_THAT(refusal("{\"model\": \"m\"}"), HasSubstr("line 1"));
  EXPECT_THAT(refusal("{\"model\": \"m\", \"batch\": 1, \"ms_per_token\": 0, \"qps\": 1}"), HasSubstr("above zero"));
  EXPECT_THAT(refusal("nonsense"), HasSubstr("line 1"));
  EXPECT_THAT(refusal("{\"format\": \"other\"}"), HasSubstr("expected a result of 'optserve bench'"));
  BenchResult result;
  result.spec.batches = {1};
  EXPECT_THAT(refusal(to_json(result).dump(2)), HasSubstr("no batch"));
  result.spec.kind = workload::BenchKind::kThroughput;
  result.spec.num_requests = 1;
  EXPECT_THAT(refusal(to_json(result).dump(2)), HasSubstr("throughput benchmark has no batches"));
  EXPECT_THAT(read_series(folder.path() + "/none").refusal().message, HasSubstr("No such file"));
}

}  // namespace bench_plot_test
}  // namespace optserve::cli
