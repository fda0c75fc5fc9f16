#include "cli/bench/bench_result.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "cli/bench/bench_recorder.h"
#include "cli/bench/bench_table.h"
#include "cli/bench/machine_info.h"

namespace optserve::cli {
namespace bench_result_test {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

BenchMeasurement measured(int32_t batch, std::vector<double> seconds) {
  BenchMeasurement measurement;
  measurement.batch = batch;
  measurement.seconds = std::move(seconds);
  measurement.input_tokens = 4 * batch;
  measurement.output_tokens = 256 * batch;
  measurement.steps = 256;
  return measurement;
}

BenchMeasurement unfitting(int32_t batch) {
  BenchMeasurement measurement;
  measurement.batch = batch;
  measurement.fits = false;
  measurement.reason = "the KV cache holds 16 tokens, the batch needs 32";
  return measurement;
}

BenchResult sample() {
  BenchResult result;
  result.spec.batches = {1, 8, 16};
  result.model = "opt-30b";
  result.dtype = "F16";
  result.device = "NVIDIA H200";
  result.world = 2;
  result.version = "0.1.0";
  result.date = "2026-11-25T00:00:00Z";
  result.command = "optserve bench latency";
  result.machine = {{"cores", 2}};
  result.complete = true;
  result.measurements = {measured(1, {2.56, 2.816, 2.304}), measured(8, {5.12, 5.12, 5.12}), unfitting(16)};
  return result;
}

TEST(BenchStatistics, SpreadIsMedianAndExtremes) {
  const Spread odd = spread_of({3, 1, 2});
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.max, 3);
  EXPECT_EQ(spread_of({4, 1, 2, 3}).median, 2.5);
  EXPECT_EQ(spread_of({7}).median, 7);
}

TEST(BenchStatistics, FiguresAreDefinedAsOnThePage) {
  const LatencyFigures figures = latency_figures(measured(8, {5.12, 6, 5}), 256);
  EXPECT_DOUBLE_EQ(figures.ms_per_token.median, 20);
  EXPECT_DOUBLE_EQ(figures.qps, 8 / 5.12);
  EXPECT_DOUBLE_EQ(figures.qps * 256 * figures.ms_per_token.median / 1000, 8);
  EXPECT_DOUBLE_EQ(figures.tokens_per_second, 400);
  BenchMeasurement many;
  many.seconds = {4, 2, 3};
  many.input_tokens = 300;
  many.output_tokens = 600;
  const ThroughputFigures rates = throughput_figures(many, 30);
  EXPECT_DOUBLE_EQ(rates.requests_per_second, 10);
  EXPECT_DOUBLE_EQ(rates.output_tokens_per_second, 200);
  EXPECT_DOUBLE_EQ(rates.total_tokens_per_second, 300);
}

TEST(BenchResult, GoesThroughJson) {
  BenchResult result = sample();
  result.measurements[1].device = {300, 100};
  result.measurements[1].note = "a part may have waited";
  const json root = to_json(result);
  EXPECT_EQ(root["measurements"][1]["device_idle_share"], 0.25);
  EXPECT_EQ(root["measurements"][1]["note"], "a part may have waited");
  EXPECT_FALSE(root["measurements"][0].contains("device_idle_share"));
  EXPECT_EQ(root["measurements"][0]["ms_per_token"], 10);
  EXPECT_EQ(root["measurements"][0]["ms_per_token_min"], 9);
  EXPECT_EQ(root["measurements"][0]["ms_per_token_max"], 11);
  EXPECT_EQ(root["measurements"][2], (json{{"batch", 16}, {"fits", false}, {"reason", unfitting(16).reason}}));
  const auto read = bench_result_from_json(json::parse(root.dump()));
  ASSERT_TRUE(read.ok()) << read.refusal().message;
  EXPECT_EQ(to_json(read.value()), root);
}

TEST(BenchResult, ForeignJsonIsRefused) {
  const auto refusal = [](json root) {
    const auto read = bench_result_from_json(root);
    return read.ok() ? std::string("read") : read.refusal().message;
  };
  EXPECT_THAT(refusal(json::array()), HasSubstr("expected a result of 'optserve bench'"));
  EXPECT_THAT(refusal({{"format", "other"}}), HasSubstr("expected a result of 'optserve bench'"));
  EXPECT_THAT(refusal({{"format", "optserve-bench"}, {"format_version", 2}}),
              HasSubstr("expected format_version 1, found 2"));
  json root = to_json(sample());
  root["measurements"][0]["seconds"] = json::array();
  EXPECT_THAT(refusal(root), HasSubstr("no seconds"));
  root["measurements"][0]["seconds"] = {0.0};
  EXPECT_THAT(refusal(root), HasSubstr("not above zero"));
  root["measurements"][0].erase("fits");
  EXPECT_THAT(refusal(root), HasSubstr("fits"));
  root.erase("model");
  EXPECT_NE(refusal(root), "read");
}

TEST(BenchTable, FiguresHaveFourDigits) {
  EXPECT_EQ(figure(0.0012345), "0.001234");
  EXPECT_EQ(figure(0.71234), "0.7123");
  EXPECT_EQ(figure(12.345), "12.35");
  EXPECT_EQ(figure(123.45), "123.5");
  EXPECT_EQ(figure(123456), "123456");
  EXPECT_EQ(figure(0), "0");
  EXPECT_EQ(figure(std::nan("")), "-");
}

TEST(BenchTable, HasALineForEachBatchAndTheDefinitions) {
  EXPECT_EQ(bench_table(sample()),
            "opt-30b, fp16, 2 ranks, straight on the engine: NVIDIA H200\n"
            "prompts of 4 tokens, 256 new tokens, greedy\n"
            " batch    ms/token         (min - max)         QPS    tokens/s\n"
            "     1       10.00     (9.000 - 11.00)      0.3906       100.0\n"
            "     8       20.00     (20.00 - 20.00)       1.562       400.0\n"
            "    16    does not fit: the KV cache holds 16 tokens, the batch needs 32\n"
            "ms/token = whole time / 256, QPS = batch / whole time; the median of 3 runs\n");
  BenchResult cut = sample();
  cut.complete = false;
  EXPECT_THAT(bench_table(cut), HasSubstr("was ended early"));
}

TEST(BenchTable, ThroughputReadsAsItIsPrintedElsewhere) {
  BenchResult result = sample();
  result.spec.kind = workload::BenchKind::kThroughput;
  result.spec.num_requests = 1000;
  result.spec.mixed_lengths = true;
  BenchMeasurement all = measured(0, {10});
  all.input_tokens = 200'000;
  all.output_tokens = 180'000;
  result.measurements = {all};
  EXPECT_THAT(bench_table(result), Not(HasSubstr("idle")));
  result.measurements[0].device = {9750, 250};
  const std::string text = bench_table(result);
  EXPECT_THAT(text, HasSubstr("Device idle between steps:  2.500 %\n"));
  EXPECT_THAT(text, HasSubstr("1000 requests at once, prompts of about 4 tokens, about 256 new tokens, greedy\n"));
  EXPECT_THAT(text, HasSubstr("100.0 requests/s, 38000 total tokens/s, 18000 output tokens/s\n"));
  EXPECT_THAT(text, HasSubstr("Total num prompt tokens:    200000\n"));
}

TEST(BenchRecorder, TurnsEventsIntoAResult) {
  BenchResult result;
  result.spec.batches = {1, 2};
  BenchProgress quiet(stderr, false);
  BenchRecorder recorder(result, quiet);
  recorder.on_event({{"event", "started"},
                     {"model", "demo"},
                     {"device", "cpu"},
                     {"dtype", "F32"},
                     {"world", 2},
                     {"version", "0.1.0"},
                     {"kv_tokens", 512}});
  recorder.on_event({{"event", "progress"}, {"warmup", true}, {"run", 0}, {"runs", 1}, {"done", 0}, {"total", 8}});
  recorder.on_event({{"event", "measurement"},
                     {"batch", 1},
                     {"fits", true},
                     {"seconds", {1.0}},
                     {"input_tokens", 4},
                     {"output_tokens", 256},
                     {"device_busy_ms", 90.0},
                     {"device_idle_ms", 10.0}});
  recorder.on_event({{"event", "measurement"}, {"batch", 2}, {"fits", false}, {"reason", "no room"}});
  recorder.on_event({{"event", "finished"}, {"complete", true}});
  EXPECT_EQ(result.model, "demo");
  EXPECT_EQ(result.world, 2);
  EXPECT_EQ(result.engine["kv_tokens"], 512);
  EXPECT_TRUE(result.complete);
  ASSERT_EQ(result.measurements.size(), 2u);
  EXPECT_DOUBLE_EQ(result.measurements[0].idle_share().value(), 0.1);
  EXPECT_EQ(result.measurements[1].reason, "no room");
  EXPECT_THROW(recorder.on_event({{"event", "song"}}), Error);
  EXPECT_THROW(recorder.on_event({{"event", "measurement"}}), Error);
  EXPECT_THROW(recorder.on_event(json::array()), Error);
}

TEST(BenchRecorder, ProgressIsALine) {
  const json event = {{"event", "progress"}, {"batch", 64}, {"warmup", false}, {"run", 1},
                      {"runs", 3},           {"done", 50},  {"total", 100}};
  EXPECT_EQ(progress_line(event), "batch 64  run 2 of 3  [############------------]  50 %");
  EXPECT_EQ(measurement_line(unfitting(16), sample().spec), "batch 16: does not fit: " + unfitting(16).reason);
}

TEST(MachineInfo, NamesTheMachineAndTheCommand) {
  EXPECT_GE(machine_info()["cores"], 1);
  EXPECT_THAT(command_line(), HasSubstr(std::filesystem::read_symlink("/proc/self/exe").filename().string()));
}

}  // namespace bench_result_test
}  // namespace optserve::cli
