// With a draft model, generations have the same ids and log-probabilities as without, whether it guesses well or badly.
#include "engine/draft/draft_model.h"

#include <gtest/gtest.h>

#include <random>

#include "support/demo_model.h"
#include "support/engine_group.h"
#include "support/sanitized.h"
#include "support/temporary_folder.h"

namespace optserve::test_support {
namespace draft_model_test {

constexpr int kTokens = kSanitized ? 16 : 60;

std::vector<batching::SequenceRequest> requests() {
  std::mt19937_64 random(5);
  std::vector<batching::SequenceRequest> all;
  for (const DemoCase& golden : demo_goldens().cases) {
    batching::SequenceRequest& request = all.emplace_back();
    request.tokens = golden.prompt_ids;
    request.prompt_tokens = static_cast<int32_t>(golden.prompt_ids.size());
    request.max_new_tokens = kTokens;
    request.sampling.ignore_eos = true;
    const bool is_greedy = all.size() % 2 == 0;
    request.sampling.temperature = is_greedy ? 0.0f : 0.9f;
    request.sampling.top_p = is_greedy ? 1.0f : 0.95f;
    request.sampling.repetition_penalty = all.size() % 3 == 0 ? 1.2f : 1.0f;
    request.sampling.seed = random();
    if (all.size() == 4) break;
  }
  return all;
}

engine::EngineOptions engine_options(const std::string& checkpoint) {
  engine::EngineOptions options;
  options.checkpoint = checkpoint;
  options.num_blocks = 800;
  options.max_sequences = 16;
  options.max_step_tokens = 128;
  return options;
}

class DraftModelTest : public testing::Test {
 protected:
  // Runs `body` with a draft model of that checkpoint.
  static void with_draft(const engine::EngineOptions& options,
                         const std::function<void(engine::DraftModel& draft)>& body) {
    const auto backend = backend::make_backend({.device = {}, .threads = 1});
    const auto alone = comm::make_solo_communicator();
    auto engine = engine::Engine::create(options, *backend, *alone);
    ASSERT_TRUE(engine.ok()) << engine.refusal().message;
    const SystemClock clock;
    engine::DraftModel draft(*engine.value(), *alone, 4, clock);
    body(draft);
  }

  TemporaryFolder folder_;
};

TEST_F(DraftModelTest, AGoodOneGuessesMostAndChangesNothing) {
  convert_demo_model(folder_ / "demo", 2);
  convert_demo_model(folder_ / "small", 1, "int4");
  for (const GroupKind& group : {GroupKind{comm::RankKind::kSolo, 1}, GroupKind{comm::RankKind::kThreads, 2}}) {
    run_engine_group(
        group, engine_options(folder_ / "demo"), [&](engine::GroupLeader& leader, const engine::Engine& engine) {
          batching::PlannerOptions options = planner_options(engine);
          const auto expected = engine::generate_all(leader, options, requests());
          with_draft(engine_options(folder_ / "small"), [&](engine::DraftModel& draft) {
            // A draft model as slow as the model itself never pays, so this test does without the policy.
            struct Always final : batching::DraftSource {
              explicit Always(engine::DraftModel& model) : inner(model) {}
              bool pays() override { return true; }
              std::vector<std::vector<TokenId>> draft(std::span<const batching::DraftQuery> queries) override {
                return inner.draft(queries);
              }
              void note(int32_t accepted) override { inner.note(accepted); }
              engine::DraftModel& inner;
            } always(draft);
            batching::PlannerStats stats;
            const auto found = engine::generate_all(leader, options, requests(), &stats, {}, &always);
            for (size_t i = 0; i < expected.size(); ++i) {
              EXPECT_EQ(found[i].tokens, expected[i].tokens) << "request " << i;
              EXPECT_EQ(found[i].logprobs, expected[i].logprobs) << "request " << i;
            }
            EXPECT_GT(stats.drafted_tokens, static_cast<uint64_t>(kTokens));
            EXPECT_GT(2 * stats.accepted_tokens, stats.drafted_tokens) << "int4 weights say mostly the same";
          });
        });
  }
}

TEST_F(DraftModelTest, ABadOneChangesNothingAndIsSoonLeftAlone) {
  convert_demo_model(folder_ / "demo", 1);
  run_engine_group({}, engine_options(folder_ / "demo"),
                   [&](engine::GroupLeader& leader, const engine::Engine& engine) {
                     batching::PlannerOptions options = planner_options(engine);
                     const auto expected = engine::generate_all(leader, options, requests());
                     engine::EngineOptions noise = engine_options("");
                     noise.random_config = engine.config();
                     noise.random_config.num_layers = 1;
                     with_draft(noise, [&](engine::DraftModel& draft) {
                       batching::PlannerStats stats;
                       const auto found = engine::generate_all(leader, options, requests(), &stats, {}, &draft);
                       for (size_t i = 0; i < expected.size(); ++i) {
                         EXPECT_EQ(found[i].tokens, expected[i].tokens) << "request " << i;
                       }
                       EXPECT_GT(stats.drafted_tokens, 0u);
                       // The policy pauses after one window of rounds of at most four sequences and four guesses each.
                       EXPECT_LE(stats.drafted_tokens, 8u * 4u * 4u);
                     });
                   });
}

TEST(DraftModelChecks, AnotherVocabularyIsRefused) {
  model_spec::OptConfig model, draft;
  EXPECT_TRUE(engine::check_draft_model(draft, model).ok());
  draft.vocab_real = model.vocab_real + 1;
  EXPECT_FALSE(engine::check_draft_model(draft, model).ok());
}

}  // namespace draft_model_test
}  // namespace optserve::test_support
