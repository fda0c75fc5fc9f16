// `optserve bench` with the demo model: on the engine, through a pipeline of its own and through a given one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "demo_stack.h"
#include "support/demo_model.h"
#include "support/processes.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {
namespace bench_command_test {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

ProgramOutput bench(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "bench");
  return run_program("optserve", arguments);
}

std::vector<std::string> latency(const std::string& through, const std::string& folder) {
  return {"latency",
          "--model",
          "demo=" + demo_checkpoint(),
          "--through",
          through,
          "--batches",
          "1,2",
          "--output-tokens",
          "8",
          "--world",
          "2",
          "--repeats",
          "2",
          "--worker-option",
          "threads=1",
          "--json",
          folder + "/" + through + ".json",
          "--plot",
          folder + "/" + through + ".svg"};
}

void expect_latencies(const json& root) {
  EXPECT_EQ(root["format"], "optserve-bench");
  EXPECT_EQ(root["model"], "demo");
  EXPECT_EQ(root["world"], 2);
  EXPECT_EQ(root["complete"], true);
  EXPECT_EQ(root["settings"]["output_tokens"], 8);
  EXPECT_THAT(root["command"].get<std::string>(), HasSubstr("bench latency"));
  EXPECT_GE(root["machine"]["cores"], 1);
  ASSERT_EQ(root["measurements"].size(), 2u);
  for (const json& one : root["measurements"]) {
    const int batch = one["batch"];
    EXPECT_EQ(one["fits"], true);
    EXPECT_EQ(one["seconds"].size(), 2u);
    EXPECT_EQ(one["input_tokens"], 4 * batch);
    EXPECT_EQ(one["output_tokens"], 8 * batch);
    EXPECT_LE(one["ms_per_token_min"], one["ms_per_token"]);
    EXPECT_GE(one["ms_per_token_max"], one["ms_per_token"]);
    EXPECT_NEAR(one["qps"].get<double>() * 8 * one["ms_per_token"].get<double>() / 1000, batch, 1e-6);
  }
}

TEST(BenchCommand, LatencyOnTheEngineAndThroughThePipelineAnswerTheSameQuestion) {
  const TemporaryFolder folder;
  for (const std::string through : {"engine", "pipeline"}) {
    const ProgramOutput ran = bench(latency(through, folder.path()));
    ASSERT_EQ(ran.status, 0) << ran.err;
    EXPECT_THAT(ran.out, HasSubstr("prompts of 4 tokens, 8 new tokens, greedy"));
    EXPECT_THAT(ran.err, HasSubstr("batch 2: "));
    const json root = json::parse(read_file(folder / (through + ".json")));
    EXPECT_EQ(root["through"], through);
    expect_latencies(root);
    EXPECT_THAT(read_file(folder / (through + ".svg")), StartsWith("<?xml"));
  }
  const ProgramOutput plot =
      bench({"plot", folder / "engine.json", folder / "pipeline.json", "--plot", folder / "both.svg"});
  EXPECT_EQ(plot.status, 0) << plot.err;
  EXPECT_THAT(plot.err, HasSubstr("2 series measured, 0 published"));
  EXPECT_THAT(read_file(folder / "both.svg"), HasSubstr("optserve demo TP2 (pipeline)"));
}

TEST(BenchCommand, ABatchThatDoesNotFitIsNoError) {
  const ProgramOutput ran = bench({"latency", "--model", demo_checkpoint(), "--batches", "1,2", "--output-tokens", "8",
                                   "--repeats", "1", "--worker-option", "kv-tokens=16"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("     2    does not fit: the KV cache holds 16 tokens, the batch needs 32\n"));
}

TEST(BenchCommand, RandomWeightsNeedOnlyAShape) {
  const ProgramOutput ran = bench({"latency", "--model", demo_checkpoint(), "--random-weights", "--batches", "1",
                                   "--output-tokens", "8", "--dtype", "fp32"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, StartsWith("demo (random weights), fp32, 1 rank, straight on the engine: cpu"));
}

TEST(BenchCommand, ThroughputRunsThroughAStackThatIsThere) {
  DemoStack stack({});
  stack.wait_ready();
  const TemporaryFolder folder;
  const ProgramOutput ran =
      bench({"throughput", "--connect", stack.client_endpoint(), "--model", "demo=" + demo_checkpoint(), "--requests",
             "12", "--input-tokens", "6", "--output-tokens", "10", "--json", folder / "result.json"});
  ASSERT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("12 requests at once, prompts of about 6 tokens, about 10 new tokens"));
  EXPECT_THAT(ran.out, HasSubstr("output tokens/s"));
  const json root = json::parse(read_file(folder / "result.json"));
  EXPECT_EQ(root["through"], "pipeline");
  EXPECT_GT(root["measurements"][0]["total_tokens_per_second"], 0);
  EXPECT_TRUE(stack.shut_down());
}

TEST(BenchCommand, BadInputIsRefusedBeforeAnythingStarts) {
  const auto refused = [](std::vector<std::string> arguments, const std::string& message) {
    const ProgramOutput ran = bench(std::move(arguments));
    EXPECT_EQ(ran.status, 1) << message;
    EXPECT_THAT(ran.err, HasSubstr(message));
    EXPECT_EQ(ran.out, "");
  };
  refused({"latency"}, "model: expected the folder of a sharded checkpoint");
  refused({"latency", "--model", "opt-1b", "--random-weights"}, "unknown_model: model: expected one of opt-125m");
  refused({"latency", "--model", "no-such-folder"}, "no-such-folder");
  refused({"latency", "--model", demo_checkpoint(), "--batches", "0"}, "batches: expected numbers from 1 to 4096");
  refused({"latency", "--model", demo_checkpoint(), "--output-tokens", "1021"}, "exceed the context of 1024 tokens");
  refused({"latency", "--model", demo_checkpoint(), "--world", "3"}, "cannot be shared by 3 ranks");
  refused({"latency", "--model", demo_checkpoint(), "--json", "/no/such/folder/x.json"}, "/no/such/folder/x.json");
  refused({"latency", "--model", demo_checkpoint(), "--worker-option", "no-such-option=1"}, "--no-such-option");
  refused({"latency", "--model", demo_checkpoint(), "--dtype", "fp4"}, "expected auto, fp32, fp16 or bf16");
  refused({"plot", demo_file("golden.json"), "--plot", "unwritten.svg"}, "golden.json");
  EXPECT_EQ(bench({"plot", "x.json"}).status, 2);
  EXPECT_NE(bench({}).status, 0);
}

}  // namespace bench_command_test
}  // namespace optserve::test_support
