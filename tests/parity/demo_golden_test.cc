// The shipped model against its goldens: prompt log-probabilities within 1e-3 and the same 64 greedy ids for every
// case, over one, two and four ranks, whatever else runs and however the planner cuts the work.
#include <gtest/gtest.h>

#include <random>
#include <span>

#include "checkpoint/reader.h"
#include "engine/layer_walk.h"
#include "support/demo_model.h"
#include "support/engine_group.h"
#include "support/sanitized.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {
namespace demo_golden_test {

constexpr float kLogprobTolerance = 1e-3f;
constexpr int kOthers = kSanitized ? 8 : 64;
constexpr size_t kAlone = kSanitized ? 2 : 12;  // how many cases also run alone
constexpr int kSampled = kSanitized ? 4 : 12, kSampledTokens = kSanitized ? 40 : 79;

batching::SequenceRequest greedy_request(const DemoCase& golden) {
  batching::SequenceRequest request;
  request.tokens = golden.prompt_ids;
  request.prompt_tokens = static_cast<int32_t>(golden.prompt_ids.size());
  request.max_new_tokens = static_cast<int32_t>(golden.greedy_ids.size());
  request.prompt_logprobs = true;
  request.sampling.temperature = 0;
  request.sampling.ignore_eos = true;
  return request;
}

std::vector<batching::SequenceRequest> greedy_requests() {
  std::vector<batching::SequenceRequest> requests;
  for (const DemoCase& golden : demo_goldens().cases) requests.push_back(greedy_request(golden));
  return requests;
}

// Prompts of random length from the goldens' own ids, sampled at random.
std::vector<batching::SequenceRequest> other_requests(int count) {
  std::mt19937_64 random(11);
  std::vector<batching::SequenceRequest> requests;
  for (int i = 0; i < count; ++i) {
    const DemoCase& golden = demo_goldens().cases[random() % demo_goldens().cases.size()];
    batching::SequenceRequest& request = requests.emplace_back();
    request.tokens = golden.prompt_ids;
    const auto more = static_cast<int64_t>(random() % golden.greedy_ids.size());
    request.tokens.insert(request.tokens.end(), golden.greedy_ids.begin(), golden.greedy_ids.begin() + more);
    request.prompt_tokens = static_cast<int32_t>(request.tokens.size());
    request.max_new_tokens = static_cast<int32_t>(random() % 80);
    request.sampling.temperature = 0.8f;
    request.sampling.top_p = 0.95f;
    request.sampling.seed = random();
  }
  return requests;
}

void expect_golden(const DemoCase& golden, const engine::Generation& found) {
  SCOPED_TRACE("prompt \"" + golden.prompt + "\"");
  EXPECT_EQ(found.tokens, golden.greedy_ids);
  ASSERT_EQ(found.prompt_logprobs.size(), golden.prompt_logprobs.size());
  for (size_t i = 0; i < golden.prompt_logprobs.size(); ++i) {
    EXPECT_NEAR(found.prompt_logprobs[i], golden.prompt_logprobs[i], kLogprobTolerance) << "prompt token " << i + 1;
  }
}

// The first generations belong to the cases, in their order.
void expect_goldens(const std::vector<engine::Generation>& generations) {
  const auto& cases = demo_goldens().cases;
  ASSERT_EQ(cases.size(), 12u);
  for (size_t i = 0; i < cases.size(); ++i) expect_golden(cases[i], generations[i]);
}

// A walk with one layer in memory at a time gives the golden log-probabilities of the prompts, too.
TEST(DemoLayerWalk, HasTheGoldenLogprobs) {
  const TemporaryFolder folder;
  convert_demo_model(folder / "demo", 2);
  const auto reader = checkpoint::CheckpointReader::open(folder / "demo");
  ASSERT_TRUE(reader.ok());
  const auto source = engine::make_checkpoint_source(reader.value());
  const auto backend = backend::make_backend({});
  std::vector<std::vector<TokenId>> prompts;
  for (const DemoCase& golden : demo_goldens().cases) prompts.push_back(golden.prompt_ids);
  engine::LayerWalk walk(*source, *backend, prompts);
  while (!walk.at_end()) walk.next_layer();
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::vector<float> logits = walk.logits(i);
    std::vector<TokenId> targets(prompts[i].begin() + 1, prompts[i].end());
    const auto rows = static_cast<int64_t>(targets.size());
    std::vector<float> found(targets.size());
    backend->token_logprobs(Tensor(logits.data(), DType::kF32, {rows, reader.value().config().vocab}, {}),
                            Tensor(targets.data(), DType::kI32, {rows}, {}), reader.value().config().vocab_real,
                            Tensor(found.data(), DType::kF32, {rows}, {}));
    for (size_t k = 0; k < found.size(); ++k) {
      EXPECT_NEAR(found[k], demo_goldens().cases[i].prompt_logprobs[k], kLogprobTolerance) << i << ", token " << k + 1;
    }
  }
}

class DemoGolden : public testing::TestWithParam<GroupKind> {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TemporaryFolder>();
    convert_demo_model(checkpoint(), 4);
  }
  static void TearDownTestSuite() { folder_.reset(); }
  static std::string checkpoint() { return *folder_ / "demo"; }

  static engine::EngineOptions roomy() {
    engine::EngineOptions options;
    options.checkpoint = checkpoint();
    options.num_blocks = 800;
    options.max_sequences = 76;
    options.max_step_tokens = 160;
    return options;
  }
  void run(const engine::EngineOptions& options,
           const std::function<void(engine::GroupLeader&, const engine::Engine&)>& body) {
    run_engine_group(GetParam(), options, body);
  }

 private:
  static std::unique_ptr<TemporaryFolder> folder_;
};

std::unique_ptr<TemporaryFolder> DemoGolden::folder_;

std::vector<GroupKind> groups() {
  if (kSanitized) return {{comm::RankKind::kThreads, 2}, {comm::RankKind::kProcesses, 2}};
  return all_groups();
}

INSTANTIATE_TEST_SUITE_P(Groups, DemoGolden, testing::ValuesIn(groups()),
                         [](const auto& group) { return group_name(group.param); });

TEST_P(DemoGolden, AloneAndAmong64Others) {
  run(roomy(), [](engine::GroupLeader& leader, const engine::Engine& engine) {
    const auto options = planner_options(engine);
    for (const DemoCase& golden : std::span(demo_goldens().cases).first(kAlone)) {
      expect_golden(golden, engine::generate_all(leader, options, {greedy_request(golden)}).front());
    }
    auto requests = greedy_requests();
    for (auto& other : other_requests(kOthers)) requests.push_back(std::move(other));
    expect_goldens(engine::generate_all(leader, options, requests));
  });
}

TEST_P(DemoGolden, Chunked) {
  engine::EngineOptions options = roomy();
  options.max_sequences = options.max_step_tokens = 3;
  run(options, [](engine::GroupLeader& leader, const engine::Engine& engine) {
    expect_goldens(engine::generate_all(leader, planner_options(engine), greedy_requests()));
  });
}

TEST_P(DemoGolden, PreemptedAndResumed) {
  engine::EngineOptions options = roomy();
  options.num_blocks = 16;
  run(options, [](engine::GroupLeader& leader, const engine::Engine& engine) {
    batching::PlannerStats stats;
    expect_goldens(engine::generate_all(leader, planner_options(engine), greedy_requests(), &stats));
    EXPECT_GT(stats.preemptions, 5u);
  });
}

TEST_P(DemoGolden, SampledTokensDependOnSeedAndPositionAlone) {
  auto requests = other_requests(kSampled);
  for (auto& request : requests) {
    request.max_new_tokens = kSampledTokens;
    request.sampling.ignore_eos = true;
  }
  std::vector<engine::Generation> alone;
  run_engine_group({comm::RankKind::kSolo, 1}, roomy(), [&](engine::GroupLeader& leader, const engine::Engine& engine) {
    for (const auto& request : requests) {
      alone.push_back(engine::generate_all(leader, planner_options(engine), {request}).front());
    }
  });
  engine::EngineOptions tight = roomy();
  tight.num_blocks = 14;
  run(tight, [&](engine::GroupLeader& leader, const engine::Engine& engine) {
    batching::PlannerStats stats;
    const auto together = engine::generate_all(leader, planner_options(engine), requests, &stats);
    EXPECT_GT(stats.preemptions, 0u);
    for (size_t i = 0; i < alone.size(); ++i) EXPECT_EQ(together[i].tokens, alone[i].tokens) << "sequence " << i;
  });
}

}  // namespace demo_golden_test
}  // namespace optserve::test_support
