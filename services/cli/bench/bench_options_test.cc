#include "cli/bench/bench_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace optserve::cli {
namespace bench_options_test {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using workload::BenchKind;

BenchOptions random_model(const std::string& name) {
  BenchOptions options(BenchKind::kLatency);
  options.model = name;
  options.random_weights = true;
  return options;
}

std::string refusal_of(const BenchOptions& options) {
  const auto plan = plan_bench(options);
  return plan.ok() ? "planned" : plan.refusal().message;
}

TEST(BenchOptions, BatchesAreListsAndDoublings) {
  EXPECT_THAT(parse_batches("1,2,8").value(), ElementsAre(1, 2, 8));
  EXPECT_THAT(parse_batches("1..1024").value(), ElementsAre(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024));
  EXPECT_THAT(parse_batches("3..20,1,6").value(), ElementsAre(3, 6, 12, 1));
  EXPECT_THAT(parse_batches("4096").value(), ElementsAre(4096));
  for (const char* text :
       {"", "0", "1,", ",1", "1,,2", "a", "-1", "1..", "..4", "8..4", "4097", "1 2", "1.5", "9999999999"}) {
    EXPECT_FALSE(parse_batches(text).ok()) << text;
  }
  EXPECT_THAT(parse_batches("0").refusal().message, HasSubstr("found '0'"));
}

TEST(BenchOptions, DefaultsAreThePagesQuestion) {
  const BenchPlan plan = plan_bench(random_model("opt-30b")).value();
  EXPECT_EQ(plan.spec.batches.size(), 11u);
  EXPECT_EQ(plan.spec.input_tokens, 4);
  EXPECT_EQ(plan.spec.output_tokens, 256);
  EXPECT_TRUE(plan.spec.sampling.is_greedy());
  EXPECT_TRUE(plan.spec.sampling.ignore_eos);
  EXPECT_FALSE(plan.pipeline);
  // The largest batch is admitted in one step.
  EXPECT_THAT(plan.worker_options, Contains("max-sequences=1024"));
  EXPECT_THAT(plan.worker_options, Contains("max-step-tokens=4096"));
}

TEST(BenchOptions, WorkerArgumentsCarryTheWholeQuestion) {
  BenchOptions options = random_model("opt-125m");
  options.world = 2;
  options.batches = "1,2";
  options.dtype = "fp16";
  options.worker_options = {"kv-tokens=4096"};
  const BenchPlan plan = plan_bench(options).value();
  const auto arguments = worker_arguments(options, plan);
  EXPECT_THAT(arguments, Contains("--model=opt-125m"));
  EXPECT_THAT(arguments, Contains("--random-weights"));
  EXPECT_THAT(arguments, Contains("--world=2"));
  EXPECT_THAT(arguments, Contains("--dtype=fp16"));
  EXPECT_EQ(arguments.back(), "--kv-tokens=4096");
  for (const std::string& argument : arguments) {
    if (!argument.starts_with("--bench=")) continue;
    EXPECT_EQ(workload::read_bench_spec(argument.substr(8)).value(), plan.spec);
  }
  EXPECT_THAT(stack_arguments(options, plan, "folder"), Not(Contains("--volatile")));
  EXPECT_THAT(stack_arguments(options, plan, "folder"), Contains("kv-tokens=4096"));
}

TEST(BenchOptions, LongPromptsDoNotReserveMemoryForAllTheirRows) {
  BenchOptions options = random_model("opt-125m");
  options.input_tokens = 1024;
  EXPECT_THAT(plan_bench(options).value().worker_options, Contains("max-step-tokens=8192"));
  options.batches = "1";
  options.input_tokens = 4;
  EXPECT_THAT(plan_bench(options).value().worker_options, Contains("max-step-tokens=512"));
}

TEST(BenchOptions, ThroughputIsMixedAboutTheUsualMeans) {
  BenchOptions options(BenchKind::kThroughput);
  options.model = "opt-1.3b";
  options.random_weights = true;
  const BenchPlan plan = plan_bench(options).value();
  EXPECT_TRUE(plan.spec.mixed_lengths);
  EXPECT_EQ(plan.spec.input_tokens, 200);
  EXPECT_EQ(plan.spec.output_tokens, 180);
  EXPECT_THAT(plan.worker_options, Contains("max-sequences=256"));
}

// The parser's message about these arguments; empty if it accepts them.
std::string usage_error(BenchKind kind, const std::vector<std::string>& arguments) {
  BenchOptions options(kind);
  ConfigParser parser("bench", "");
  add_options(parser, options);
  std::vector<const char*> argv{"bench"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  ::testing::internal::CaptureStderr();
  parser.parse(static_cast<int>(argv.size()), argv.data());
  return ::testing::internal::GetCapturedStderr();
}

TEST(BenchOptions, TheParserRefusesNumbersOutOfRangeAndUnknownWords) {
  const auto expect = [](const char* option, const char* value, const char* expected) {
    EXPECT_THAT(usage_error(BenchKind::kThroughput, {option, value}),
                ::testing::AllOf(HasSubstr(option), HasSubstr(expected)));
  };
  expect("--device", "tpu", "expected cpu or cuda");
  expect("--through", "api", "expected engine or pipeline");
  expect("--lengths", "odd", "expected mixed or fixed");
  expect("--world", "0", "expected 1 to 64");
  expect("--world", "65", "expected 1 to 64");
  expect("--max-sequences", "0", "expected 1 to 4096");
  EXPECT_EQ(usage_error(BenchKind::kThroughput, {"--world", "64", "--lengths", "fixed", "--max-sequences", "1"}), "");
}

TEST(BenchOptions, RefusalsNameTheOption) {
  const auto expect = [](const std::string& message, void (*change)(BenchOptions&)) {
    BenchOptions options = random_model("opt-125m");
    change(options);
    EXPECT_THAT(refusal_of(options), HasSubstr(message));
  };
  expect("model: expected one of opt-125m, opt-350m", [](auto& o) { o.model = "opt-1b"; });
  expect("model: expected the folder", [](auto& o) { o.model = ""; });
  expect("batches: expected numbers", [](auto& o) { o.batches = "1,0"; });
  expect("exceed the context of 2048 tokens", [](auto& o) { o.output_tokens = 2045; });
  expect("output_tokens is 2049, expected 1 to 2048", [](auto& o) { o.output_tokens = 2049; });
  expect("repeats is 0, expected 1", [](auto& o) { o.repeats = 0; });
  expect("temperature", [](auto& o) { o.sampling.temperature = 3; });
  expect("world: opt-125m cannot be shared by 5 ranks; possible are 1, 2", [](auto& o) { o.world = 5; });
  expect("worker-option is 'kv-tokens', expected NAME=VALUE", [](auto& o) { o.worker_options = {"kv-tokens"}; });
  expect("random-weights: a pipeline needs", [](auto& o) { o.through = "pipeline"; });
  expect("with --random-weights the name is enough", [](auto& o) { o.random_weights = false; });
  expect("model: ", [](auto& o) {
    o.random_weights = false;
    o.model = "demo=no-such-folder";
  });
}

TEST(BenchOptions, ARunningStackNeedsOnlyTheNameOfAPublishedModel) {
  BenchOptions options(BenchKind::kLatency);
  options.model = "opt-125m";
  options.connect = "tcp://127.0.0.1:5555";
  const BenchPlan plan = plan_bench(options).value();
  EXPECT_TRUE(plan.pipeline);
  EXPECT_EQ(plan.config.vocab_real, 50265);
  options.model = "mine";
  EXPECT_THAT(refusal_of(options), HasSubstr("NAME=FOLDER or one of opt-125m"));
}

}  // namespace bench_options_test
}  // namespace optserve::cli
