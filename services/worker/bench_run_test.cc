#include "worker/bench_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/generate.h"
#include "model_spec/tiny_config.h"

namespace optserve::worker {
namespace bench_run_test {

using nlohmann::json;
using ::testing::HasSubstr;
using workload::BenchSpec;

// A tiny random model on one CPU thread; 8 sequences, and KV blocks for almost as many at full length.
class BenchRun : public ::testing::Test {
 protected:
  BenchRun()
      : backend_(backend::make_backend({.device = {}, .threads = 1})), communicator_(comm::make_solo_communicator()) {
    engine::EngineOptions options;
    options.random_config = model_spec::tiny_config();
    options.num_blocks = 31;
    options.max_sequences = 8;
    options.max_step_tokens = 64;
    engine_ = std::move(engine::Engine::create(options, *backend_, *communicator_)).value();
  }

  std::vector<json> run(
      const BenchSpec& spec, std::function<bool()> is_stopped = [] { return false; }) {
    std::vector<json> events;
    engine::GroupLeader leader(*engine_, *communicator_);
    const SystemClock clock;
    run_bench(leader, *engine_, spec, {clock, [&](const json& event) { events.push_back(event); }, is_stopped});
    return events;
  }
  static std::vector<json> measurements(const std::vector<json>& events) {
    std::vector<json> found;
    for (const json& event : events) {
      if (event["event"] == "measurement") found.push_back(event);
    }
    return found;
  }

  std::unique_ptr<backend::Backend> backend_;
  std::unique_ptr<comm::Communicator> communicator_;
  std::unique_ptr<engine::Engine> engine_;
};

BenchSpec latency(std::vector<int32_t> batches, int32_t output_tokens) {
  BenchSpec spec;
  spec.batches = std::move(batches);
  spec.output_tokens = output_tokens;
  return spec;
}

TEST_F(BenchRun, MeasuresEachBatchAsOften) {
  const auto events = run(latency({1, 4}, 10));
  const auto measured = measurements(events);
  ASSERT_EQ(measured.size(), 2u);
  for (const json& one : measured) {
    EXPECT_EQ(one["fits"], true);
    EXPECT_EQ(one["seconds"].size(), 3u);
    for (const double seconds : one["seconds"]) EXPECT_GT(seconds, 0);
    EXPECT_EQ(one["steps"], 10);  // all were admitted together, and the prompt's step gives the first token
    EXPECT_EQ(one["input_tokens"], 4 * one["batch"].get<int>());
    EXPECT_EQ(one["output_tokens"], 10 * one["batch"].get<int>());
  }
  EXPECT_EQ(events.front()["event"], "progress");
  EXPECT_EQ(events.front()["warmup"], true);
  EXPECT_EQ(events.back(), (json{{"event", "finished"}, {"complete", true}}));
}

TEST_F(BenchRun, ABatchThatDoesNotFitIsReportedAndTheOthersRun) {
  const auto measured = measurements(run(latency({16, 8, 7}, 60)));
  ASSERT_EQ(measured.size(), 3u);
  EXPECT_EQ(measured[0]["fits"], false);
  EXPECT_THAT(measured[0]["reason"].get<std::string>(), HasSubstr("8 sequences at a time"));
  EXPECT_EQ(measured[1]["fits"], false);
  EXPECT_EQ(measured[1]["reason"], "the KV cache holds 496 tokens, the batch needs 512");
  EXPECT_EQ(measured[2]["fits"], true);
  EXPECT_EQ(measured[2]["preemptions"], 0);
}

TEST_F(BenchRun, ThroughputFinishesAllRequests) {
  BenchSpec spec;
  spec.kind = workload::BenchKind::kThroughput;
  spec.num_requests = 20;
  spec.mixed_lengths = true;
  spec.input_tokens = 8;
  spec.output_tokens = 12;
  spec.warmup = 0;
  spec.repeats = 1;
  const auto measured = measurements(run(spec));
  ASSERT_EQ(measured.size(), 1u);
  EXPECT_EQ(measured[0]["seconds"].size(), 1u);
  EXPECT_FALSE(measured[0].contains("batch"));
  EXPECT_GT(measured[0]["output_tokens"], 20);
}

TEST_F(BenchRun, StopsWhenToldTo) {
  int asked = 0;
  const auto events = run(latency({1, 2, 4}, 10), [&] { return ++asked > 8; });
  EXPECT_LT(measurements(events).size(), 3u);
  EXPECT_EQ(events.back(), (json{{"event", "finished"}, {"complete", false}}));
}

TEST_F(BenchRun, RefusesMoreThanTheContext) {
  try {
    run(latency({1}, 100));
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("exceed the context of 64 tokens of model tiny"));
  }
}

}  // namespace bench_run_test
}  // namespace optserve::worker
