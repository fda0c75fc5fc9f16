#include "metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"

namespace optserve::metrics {
namespace metrics_test {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Metrics, TextHoldsEveryKind) {
  Registry registry;
  const Counter jobs = registry.counter("optserve_jobs_total", "Jobs", {{"state", "done"}});
  jobs.add();
  jobs.add(2);
  const Gauge depth = registry.gauge("optserve_queue_depth", "Waiting jobs");
  depth.set(5);
  depth.add(-2);
  const Histogram latency = registry.histogram("optserve_step_seconds", "Step", {0.001, 0.01, 0.1});
  latency.observe(0.005);
  latency.observe(1);
  const std::string text = registry.text();
  EXPECT_THAT(text, HasSubstr("# TYPE optserve_jobs_total counter"));
  EXPECT_THAT(text, HasSubstr("optserve_jobs_total{state=\"done\"} 3"));
  EXPECT_THAT(text, HasSubstr("optserve_queue_depth 3"));
  EXPECT_THAT(text, HasSubstr("optserve_step_seconds_bucket{le=\"0.01\"} 1"));
  EXPECT_THAT(text, HasSubstr("optserve_step_seconds_bucket{le=\"+Inf\"} 2"));
  EXPECT_THAT(text, HasSubstr("optserve_step_seconds_count 2"));
}

TEST(Metrics, CountersAndOnlyTheyEndInTotal) {
  Registry registry;
  EXPECT_THAT([&] { (void)registry.gauge("optserve_steps_total", "x"); },
              ::testing::ThrowsMessage<Error>(HasSubstr("optserve_steps_total")));
  EXPECT_THAT([&] { (void)registry.counter("optserve_steps", "x"); },
              ::testing::ThrowsMessage<Error>(HasSubstr("optserve_steps")));
}

TEST(Metrics, ATotalThatIsCountedElsewhereOnlyGrows) {
  Registry registry;
  const Counter steps = registry.counter("optserve_steps_total", "x");
  steps.raise_to(5);
  steps.raise_to(3);
  steps.raise_to(7);
  EXPECT_THAT(registry.text(), HasSubstr("optserve_steps_total 7\n"));
  Counter().raise_to(1);
}

TEST(Metrics, ConstantLabelsAreOnEveryMetric) {
  Registry registry(Labels{{"model", "opt-125m"}});
  registry.counter("optserve_x_total", "x", {{"kind", "a"}}).add();
  registry.gauge("optserve_y", "y").set(1);
  EXPECT_THAT(registry.text(), HasSubstr("optserve_y{model=\"opt-125m\"} 1"));
  EXPECT_THAT(registry.text(), ::testing::ContainsRegex("optserve_x_total.*model=\"opt-125m\".* 1"));
}

TEST(Metrics, SameNameAndLabelsAreTheSameMetric) {
  Registry registry;
  registry.counter("optserve_x_total", "x").add();
  registry.counter("optserve_x_total", "x").add();
  EXPECT_THAT(registry.text(), HasSubstr("optserve_x_total 2"));
}

TEST(Metrics, MisuseIsAnErrorThatNamesTheMetric) {
  Registry registry;
  (void)registry.counter("optserve_x_total", "x");
  EXPECT_THAT([&] { (void)registry.gauge("optserve_x_total", "x"); },
              ::testing::ThrowsMessage<Error>(HasSubstr("optserve_x_total")));
  EXPECT_THAT([&] { (void)registry.gauge("no spaces", "x"); }, ::testing::ThrowsMessage<Error>(HasSubstr("no spaces")));
}

TEST(Metrics, HandlesWithoutARegistryCountNothing) {
  Registry registry;
  (void)registry.counter("optserve_x_total", "x");
  (void)registry.gauge("optserve_y", "y");
  (void)registry.histogram("optserve_z_seconds", "z", {1});
  const std::string before = registry.text();
  Counter().add();
  Gauge().set(1);
  Gauge().add(1);
  Histogram().observe(1);
  EXPECT_EQ(registry.text(), before);
  EXPECT_THAT(before, HasSubstr("optserve_x_total 0"));
}

TEST(Metrics, VllmsNamesAreAddedWithItsLabels) {
  Registry registry({{"model", "opt"}, {"rank", "0"}}, other_names("vllm"));
  registry.gauge("optserve_worker_running_sequences", "x").set(3);
  registry.histogram("optserve_job_inter_token_seconds", "x", {1}).observe(0.5);
  registry.gauge("optserve_model_jobs", "x", {{"stage", "waiting"}}).set(5);
  registry.gauge("optserve_model_jobs", "x", {{"stage", "running"}}).set(6);
  const std::string text = registry.text();
  EXPECT_THAT(text, HasSubstr("optserve_worker_running_sequences{model=\"opt\",rank=\"0\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE vllm:num_requests_running gauge\n"
                              "vllm:num_requests_running{model_name=\"opt\",engine=\"0\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("vllm:inter_token_latency_seconds_count{model_name=\"opt\",engine=\"0\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:time_per_output_token_seconds_count{model_name=\"opt\",engine=\"0\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_waiting{model_name=\"opt\",engine=\"0\"} 5\n"));
  EXPECT_THAT(text, Not(HasSubstr("\"} 6\nvllm")));
  Registry own({{"model", "opt"}}, other_names("none"));
  own.gauge("optserve_worker_running_sequences", "x").set(3);
  EXPECT_THAT(own.text(), Not(HasSubstr("vllm")));
}

TEST(Metrics, ThreadsLoseNoCount) {
  Registry registry;
  const Counter counter = registry.counter("optserve_x_total", "x");
  const Histogram histogram = registry.histogram("optserve_y_seconds", "y", {1});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) {
        counter.add();
        histogram.observe(0.5);
        if (i % 1'000 == 0) (void)registry.text();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(registry.text(), HasSubstr("optserve_x_total 40000"));
  EXPECT_THAT(registry.text(), HasSubstr("optserve_y_seconds_count 40000"));
}

}  // namespace metrics_test
}  // namespace optserve::metrics
