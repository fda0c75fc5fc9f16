// The engine on tiny random models: the same tokens for every group size, batch and schedule, and clear refusals.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "comm/run_ranks.h"
#include "engine/generate.h"
#include "model_spec/tiny_config.h"

namespace optserve::engine {
namespace engine_test {

using batching::SequenceRequest;
using model_spec::tiny_config;
using sampling::FinishReason;
using testing::HasSubstr;

EngineOptions tiny_options() {
  EngineOptions options;
  options.random_config = tiny_config();
  options.random_seed = 5;
  options.num_blocks = 64;
  options.max_sequences = 16;
  options.max_step_tokens = 48;
  return options;
}

SequenceRequest request(int prompt, int new_tokens, uint64_t seed) {
  SequenceRequest r;
  r.prompt_tokens = prompt;
  r.max_new_tokens = new_tokens;
  r.prompt_logprobs = true;
  r.sampling.temperature = seed % 2 == 0 ? 0.0f : 0.9f;
  r.sampling.seed = seed;
  r.tokens.push_back(2);
  for (int i = 1; i < prompt; ++i) r.tokens.push_back(4 + static_cast<TokenId>((seed * 31 + i * 17) % 95));
  return r;
}

std::vector<SequenceRequest> requests() {
  std::vector<SequenceRequest> list;
  for (int i = 0; i < 12; ++i) list.push_back(request(1 + i * 3, 20, static_cast<uint64_t>(i)));
  return list;
}

std::unique_ptr<backend::Backend> one_thread() { return backend::make_backend({.device = {}, .threads = 1}); }

// Runs the requests on a group and returns the generations.
std::vector<Generation> generate(const EngineOptions& options, int world, std::vector<SequenceRequest> list,
                                 batching::PlannerStats* stats = nullptr, int32_t draft_tokens = 0) {
  std::vector<Generation> generations;
  comm::run_ranks(world == 1 ? comm::RankKind::kSolo : comm::RankKind::kThreads, world,
                  [&](comm::Communicator& communicator) {
                    const auto backend = one_thread();
                    auto engine = Engine::create(options, *backend, communicator);
                    ASSERT_TRUE(engine.ok()) << engine.refusal().message;
                    if (communicator.rank() != 0) return follow(*engine.value(), communicator);
                    GroupLeader leader(*engine.value(), communicator);
                    batching::PlannerOptions planner = planner_options(*engine.value());
                    planner.draft_tokens = draft_tokens;
                    generations = generate_all(leader, planner, std::move(list), stats);
                    leader.stop();
                  });
  return generations;
}

void expect_same(const std::vector<Generation>& a, const std::vector<Generation>& b, float tolerance) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].tokens, b[i].tokens) << "sequence " << i;
    EXPECT_EQ(a[i].finished, b[i].finished) << "sequence " << i;
    ASSERT_EQ(a[i].prompt_logprobs.size(), b[i].prompt_logprobs.size()) << "sequence " << i;
    for (size_t k = 0; k < a[i].prompt_logprobs.size(); ++k) {
      EXPECT_NEAR(a[i].prompt_logprobs[k], b[i].prompt_logprobs[k], tolerance) << "sequence " << i << " row " << k;
    }
    for (size_t k = 0; k < std::min(a[i].logprobs.size(), b[i].logprobs.size()); ++k) {
      EXPECT_NEAR(a[i].logprobs[k], b[i].logprobs[k], tolerance) << "sequence " << i << " token " << k;
    }
  }
}

TEST(GenerateAll, TellsEachStepAndCanBeGivenUp) {
  const EngineOptions options = tiny_options();
  const auto backend = one_thread();
  const auto communicator = comm::make_solo_communicator();
  const auto engine = std::move(Engine::create(options, *backend, *communicator)).value();
  GroupLeader leader(*engine, *communicator);
  const std::vector<SequenceRequest> three(3, request(4, 20, 2));
  GenerateProgress last;
  const auto whole = generate_all(leader, planner_options(*engine), three, nullptr, [&](const GenerateProgress& now) {
    EXPECT_EQ(now.steps, last.steps + 1);
    last = now;
    return true;
  });
  uint64_t tokens = 0;
  for (const Generation& generation : whole) tokens += generation.tokens.size();
  EXPECT_EQ(last.tokens, tokens);
  EXPECT_EQ(last.finished, 3u);
  const auto cut = generate_all(leader, planner_options(*engine), three, nullptr,
                                [](const GenerateProgress& now) { return now.steps < 2; });
  ASSERT_EQ(cut.size(), 3u);
  for (size_t i = 0; i < cut.size(); ++i) {
    EXPECT_FALSE(cut[i].tokens.empty());
    EXPECT_LT(cut[i].tokens.size(), std::min<size_t>(whole[i].tokens.size(), 5));
  }
}

TEST(Engine, GroupsOfAnySizeAgree) {
  const auto alone = generate(tiny_options(), 1, requests());
  for (const Generation& generation : alone) EXPECT_GE(generation.tokens.size(), 1u);
  expect_same(generate(tiny_options(), 2, requests()), alone, 1e-4f);
  expect_same(generate(tiny_options(), 4, requests()), alone, 1e-4f);
}

TEST(Engine, SoDoGroupsOfARelativeOfOpt) {
  EngineOptions options = tiny_options();
  options.random_config.activation = model_spec::Activation::kGelu;
  options.random_config.final_norm = false;
  const auto alone = generate(options, 1, requests());
  expect_same(generate(options, 2, requests()), alone, 1e-4f);
  expect_same(generate(options, 4, requests()), alone, 1e-4f);
}

// Texts that repeat themselves, with options of sampling that depend on the history.
TEST(Engine, SpeculationChangesNoToken) {
  uint64_t drafted = 0, accepted = 0;
  for (int i = 0; i < 24; ++i) {
    SequenceRequest r = request(30, 33, static_cast<uint64_t>(i));
    for (size_t k = 5; k < r.tokens.size(); ++k) r.tokens[k] = r.tokens[k - 4];
    r.prompt_logprobs = false;
    r.sampling.temperature = i % 3 == 0 ? 0.0f : 0.05f * static_cast<float>(i % 4);
    r.sampling.logprobs = i % 2 == 0 ? 3 : -1;
    if (i % 4 == 1) r.sampling.repetition_penalty = 1.2f;
    if (i % 6 == 2) r.sampling.frequency_penalty = 0.2f;
    if (i % 5 == 0) r.rules.logit_bias = {{r.tokens.back(), 3.0f}};
    r.sampling.ignore_eos = i % 8 != 0;
    batching::PlannerStats stats;
    const auto guessed = generate(tiny_options(), 1 + i % 2, {r}, &stats, 1 + i % 7);
    expect_same(guessed, generate(tiny_options(), 1 + i % 2, {r}), 1e-5f);
    drafted += stats.drafted_tokens;
    accepted += stats.accepted_tokens;
  }
  EXPECT_GT(accepted, 100u);
  EXPECT_GT(drafted - accepted, 20u);
}

// `world` is the size of the group whose cache is too small.
void expect_same_in_every_schedule(const EngineOptions& options, int world) {
  const auto together = generate(options, 1, requests());
  std::vector<Generation> alone;
  for (const SequenceRequest& r : requests()) alone.push_back(generate(options, 1, {r}).front());
  expect_same(together, alone, 1e-4f);
  EngineOptions chunked = options;
  chunked.max_step_tokens = chunked.max_sequences = 5;
  expect_same(generate(chunked, 1, requests()), alone, 1e-4f);
  EngineOptions tight = options;
  tight.num_blocks = 8;
  batching::PlannerStats stats;
  expect_same(generate(tight, world, requests(), &stats), alone, 1e-4f);
  EXPECT_GT(stats.preemptions, 0u);
}

TEST(Engine, ASequenceIsTheSameAloneChunkedAndPreempted) { expect_same_in_every_schedule(tiny_options(), 2); }

// Only with one rank, since a different order of sums can move a cell to the next step of its scale.
TEST(Engine, SoItIsWithAnInt8KvCache) {
  EngineOptions options = tiny_options();
  options.kv_dtype = DType::kI8;
  expect_same_in_every_schedule(options, 1);
  const auto plain = generate(tiny_options(), 1, requests()), int8 = generate(options, 1, requests());
  EXPECT_NE(int8[5].prompt_logprobs, plain[5].prompt_logprobs) << "int8 changed nothing";
  for (size_t k = 0; k < plain[5].prompt_logprobs.size(); ++k) {
    EXPECT_NEAR(int8[5].prompt_logprobs[k], plain[5].prompt_logprobs[k], 0.05f);
  }
  options.kv_dtype = DType::kI16;
  const auto backend = one_thread();
  const auto communicator = comm::make_solo_communicator();
  const auto refused = Engine::create(options, *backend, *communicator);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.refusal().message, HasSubstr("of the compute type or of I8, not of I16"));
}

// The sequences ask for different numbers of best tokens, in steps that score more rows than fit in one call.
TEST(Engine, ReportsTheBestTokensAtThePlacesOfAPrompt) {
  std::vector<SequenceRequest> list = requests();
  for (size_t i = 0; i < list.size(); ++i) list[i].prompt_best = static_cast<int32_t>(i * 7 % 21);
  const std::vector<Generation> found = generate(tiny_options(), 1, list);
  for (size_t i = 0; i < list.size(); ++i) {
    SCOPED_TRACE("sequence " + std::to_string(i));
    const auto wanted = static_cast<size_t>(list[i].prompt_best);
    ASSERT_EQ(found[i].prompt_best.size(), wanted > 0 ? found[i].prompt_logprobs.size() : 0);
    for (size_t place = 0; place < found[i].prompt_best.size(); ++place) {
      const auto& best = found[i].prompt_best[place];
      ASSERT_EQ(best.size(), wanted);
      const float own = found[i].prompt_logprobs[place];
      bool is_listed = false;
      for (size_t k = 0; k < best.size(); ++k) {
        EXPECT_TRUE(k == 0 || best[k].logprob <= best[k - 1].logprob);
        if (best[k].id != list[i].tokens[place + 1]) continue;
        is_listed = true;
        EXPECT_EQ(best[k].logprob, own) << "the same number in both places";
      }
      EXPECT_TRUE(is_listed || own <= best.back().logprob) << "those are better";
    }
    // The first drawn token of a greedy sequence is the best one at its position.
    SequenceRequest longer = list[i];
    if (!longer.sampling.is_greedy() || found[i].tokens.empty()) continue;
    longer.tokens.push_back(found[i].tokens.front());
    longer.prompt_tokens += 1;
    longer.max_new_tokens = 0;
    longer.prompt_best = 1;
    const Generation scored = generate(tiny_options(), 1, {longer}).front();
    EXPECT_EQ(scored.prompt_best.back().front().id, found[i].tokens.front());
  }
}

// Blocks that sequences share enter the block table of each of them, so that there are more updates than blocks.
TEST(Engine, ManySequencesOfOnePrefixEnterInOneStep) {
  EngineOptions options = tiny_options();
  options.random_config.max_positions = 256;
  options.max_sequences = options.max_step_tokens = 48;
  options.num_blocks = 128;
  std::vector<SequenceRequest> list(40, request(241, 1, 0));
  for (SequenceRequest& r : list) r.prompt_logprobs = false;
  const auto backend = one_thread();
  const auto communicator = comm::make_solo_communicator();
  const auto engine = std::move(Engine::create(options, *backend, *communicator)).value();
  GroupLeader leader(*engine, *communicator);
  batching::PlannerOptions planner = planner_options(*engine);
  planner.prefix_cache = true;
  batching::PlannerStats stats;
  const auto generations = generate_all(leader, planner, list, &stats);
  for (const Generation& generation : generations) EXPECT_EQ(generation.tokens, generations.front().tokens);
  EXPECT_EQ(stats.shared_tokens, 39u * 240) << "not all of them entered behind the first";
}

TEST(Engine, AForcedPrefixContinuesTheSameSequence) {
  const auto whole = generate(tiny_options(), 1, {request(7, 20, 3)}).front();
  ASSERT_GT(whole.tokens.size(), 8u);
  SequenceRequest resumed = request(7, 20, 3);
  resumed.tokens.insert(resumed.tokens.end(), whole.tokens.begin(), whole.tokens.begin() + 8);
  const auto rest = generate(tiny_options(), 1, {resumed}).front();
  EXPECT_EQ(rest.tokens, std::vector<TokenId>(whole.tokens.begin() + 8, whole.tokens.end()));
}

TEST(Engine, HonoursLengthMinimumAndIgnoredEndOfText) {
  // With temperature 2, 99 ids and many seeds, some texts end early.
  int ended_early = 0;
  std::vector<SequenceRequest> list;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SequenceRequest r = request(2, 50, 2 * seed + 1);
    r.sampling.temperature = 2.0f;
    r.sampling.min_new_tokens = seed % 2 == 0 ? 0 : 45;
    r.sampling.ignore_eos = seed % 4 == 2;
    list.push_back(r);
  }
  const auto generations = generate(tiny_options(), 1, list);
  for (size_t i = 0; i < generations.size(); ++i) {
    const Generation& g = generations[i];
    if (i % 4 == 2) {
      EXPECT_EQ(g.tokens.size(), 50u);
    }
    if (i % 2 == 1) {
      EXPECT_GE(g.tokens.size(), 45u);
    }
    EXPECT_TRUE(g.finished == sampling::FinishReason::kLength || g.tokens.back() == 2);
    ended_early += g.tokens.size() < 45 ? 1 : 0;
    for (TokenId token : g.tokens) EXPECT_TRUE(token >= 0 && token < 99 && token != 1) << token;
  }
  EXPECT_GT(ended_early, 0);
}

TEST(Engine, FollowsToTheLastPosition) {
  SequenceRequest r = request(5, 1000, 2);
  r.sampling.ignore_eos = true;
  const auto generation = generate(tiny_options(), 1, {r}).front();
  EXPECT_EQ(generation.tokens.size(), 59u);  // 64 positions
  EXPECT_EQ(generation.finished, sampling::FinishReason::kLength);
}

std::string refusal_of(const EngineOptions& options, int world) {
  std::string message;
  auto communicators = comm::make_thread_communicators(world);
  const auto backend = one_thread();
  const auto engine = Engine::create(options, *backend, *communicators[0]);
  EXPECT_FALSE(engine.ok());
  if (world > 1) {
    EXPECT_THROW(communicators[1]->barrier(), Error) << "the other ranks would wait for ever";
  }
  return engine.ok() ? "" : engine.refusal().message;
}

TEST(Engine, RefusesWhatItCannotServe) {
  EngineOptions options = tiny_options();
  EXPECT_THAT(refusal_of(options, 3), HasSubstr("cannot be split over 3 ranks; possible are 1, 2, 4"));
  options.max_step_tokens = 3;
  EXPECT_THAT(refusal_of(options, 1), HasSubstr("max_step_tokens is 3, expected 16 to"));
  options = tiny_options();
  options.random_config.hidden = 63;
  EXPECT_THAT(refusal_of(options, 2), HasSubstr("hidden is 63"));
  options.checkpoint = "/nonexistent/folder";
  EXPECT_THAT(refusal_of(options, 2), HasSubstr("/nonexistent/folder"));
}

TEST(Engine, ReportsBrokenLogitsInsteadOfDrawing) {
  EngineOptions options = tiny_options();
  // A group of one whose sums over the ranks can be made to hold NaN.
  class Poison final : public comm::Communicator {
   public:
    int rank() const override { return 0; }
    int world() const override { return 1; }
    void all_reduce_sum(Tensor x) override {
      if (armed) x.data<float>()[0] = std::nanf("");
    }
    void all_gather(Tensor, Tensor) override {}
    void broadcast(Tensor, int) override {}
    void broadcast_bytes(std::vector<uint8_t>&, int) override {}
    void barrier() override {}
    void abort(const std::string&) override {}
    bool armed = false;
  } poison;
  const auto backend = one_thread();
  auto engine = Engine::create(options, *backend, poison);
  ASSERT_TRUE(engine.ok());
  GroupLeader leader(*engine.value(), poison);
  const auto planner = planner_options(*engine.value());
  poison.armed = true;
  SequenceRequest r = request(4, 5, 0);
  r.prompt_logprobs = false;
  const auto broken = generate_all(leader, planner, {r});
  EXPECT_EQ(broken[0].finished, sampling::FinishReason::kError);
  EXPECT_TRUE(broken[0].tokens.empty());
}

}  // namespace engine_test
}  // namespace optserve::engine
