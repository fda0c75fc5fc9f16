// A walk over the layers gives exactly the bits that the engine gives, for every kind of model.
#include "engine/layer_walk.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "engine/generate.h"
#include "engine/weight_source.h"
#include "model_spec/tiny_config.h"

namespace optserve::engine {
namespace layer_walk_test {

constexpr uint64_t kSeed = 11;
using Texts = std::vector<std::vector<TokenId>>;

enum class Kind { kNormsBefore, kNormsAfter, kNoFinalNormAndGelu };

model_spec::OptConfig tiny_config(Kind kind) {
  const bool norm_before = kind != Kind::kNormsAfter;
  model_spec::OptConfig config = model_spec::tiny_config();
  config.num_layers = 3;
  config.embed_dim = norm_before ? 64 : 32;
  config.max_positions = 160;
  config.norm_before = norm_before;
  config.final_norm = kind != Kind::kNoFinalNormAndGelu;
  if (!config.final_norm) config.activation = model_spec::Activation::kGelu;
  return config;
}

// One row, several blocks, and more than one tile.
Texts texts() {
  Texts all;
  for (const int tokens : {1, 2, 37, 160}) {
    std::vector<TokenId>& ids = all.emplace_back();
    for (int i = 0; i < tokens; ++i) ids.push_back(4 + (tokens * 31 + i * 17) % 95);
  }
  return all;
}

// The engine's log-probabilities of each text's ids after the first.
std::vector<std::vector<float>> engine_logprobs(const model_spec::OptConfig& config, backend::Backend& backend) {
  EngineOptions options;
  options.random_config = config;
  options.random_seed = kSeed;
  options.num_blocks = 64;
  options.max_sequences = 8;
  options.max_step_tokens = 48;  // the longest text is processed in pieces
  const auto communicator = comm::make_solo_communicator();
  const auto engine = std::move(Engine::create(options, backend, *communicator)).value();
  GroupLeader leader(*engine, *communicator);
  std::vector<batching::SequenceRequest> requests;
  for (const std::vector<TokenId>& ids : texts()) {
    batching::SequenceRequest& request = requests.emplace_back();
    request.tokens = ids;
    request.prompt_tokens = static_cast<int32_t>(ids.size());
    request.prompt_logprobs = true;
  }
  std::vector<std::vector<float>> logprobs;
  for (Generation& done : generate_all(leader, planner_options(*engine), requests)) {
    logprobs.push_back(std::move(done.prompt_logprobs));
  }
  leader.stop();
  return logprobs;
}

std::vector<float> logprobs_of(backend::Backend& backend, const model_spec::OptConfig& config,
                               std::vector<float> logits, const std::vector<TokenId>& ids) {
  const auto rows = static_cast<int64_t>(ids.size()) - 1;
  std::vector<TokenId> targets(ids.begin() + 1, ids.end());
  std::vector<float> found(static_cast<size_t>(rows));
  if (rows == 0) return found;
  backend.token_logprobs(Tensor(logits.data(), DType::kF32, {rows, config.vocab}, backend.device()),
                         Tensor(targets.data(), DType::kI32, {rows}, backend.device()), config.vocab_real,
                         Tensor(found.data(), DType::kF32, {rows}, backend.device()));
  return found;
}

class LayerWalkOf : public ::testing::TestWithParam<Kind> {};

TEST_P(LayerWalkOf, HasTheEnginesLogprobsToTheBit) {
  const model_spec::OptConfig config = tiny_config(GetParam());
  const auto backend = backend::make_backend({.device = {}, .threads = 1});
  const auto wanted = engine_logprobs(config, *backend);
  const auto source = make_random_source(config, kSeed, DType::kF16);
  LayerWalk walk(*source, *backend, texts());
  while (!walk.at_end()) walk.next_layer();
  for (size_t i = 0; i < texts().size(); ++i) {
    EXPECT_EQ(logprobs_of(*backend, config, walk.logits(i), texts()[i]), wanted[i]) << "text " << i;
  }
}

TEST_P(LayerWalkOf, ShowsTheInputsOfTheLargeMatrices) {
  const model_spec::OptConfig config = tiny_config(GetParam());
  const auto backend = backend::make_backend({.device = {}, .threads = 1});
  const auto source = make_random_source(config, kSeed, DType::kF16);
  LayerWalk walk(*source, *backend, texts());
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    EXPECT_EQ(walk.layer(), layer);
    std::map<LayerInput, int64_t> rows;
    walk.next_layer([&](LayerInput input, const Tensor& x) {
      rows[input] += x.dim(0);
      ASSERT_EQ(x.dim(1), input == LayerInput::kDown ? config.ffn : config.hidden);
      for (int64_t row = 0; row < x.dim(0); ++row) {
        for (int64_t column = 0; column < x.dim(1); ++column) {
          const float value = x.row<float>(row)[column];
          ASSERT_TRUE(std::isfinite(value));
          const bool is_relu = input == LayerInput::kDown && config.activation == model_spec::Activation::kRelu;
          ASSERT_TRUE(!is_relu || value >= 0) << "what follows relu";
        }
      }
      // The outputs of norms have rows of about unit variance.
      const bool is_norm = input == LayerInput::kUp || (input == LayerInput::kQkv && (config.norm_before || layer > 0));
      double squares = 0;
      for (int64_t column = 0; column < x.dim(1); ++column) {
        squares += x.row<float>(0)[column] * x.row<float>(0)[column];
      }
      EXPECT_TRUE(!is_norm || std::abs(squares / static_cast<double>(x.dim(1)) - 1) < 0.3) << squares;
    });
    EXPECT_EQ(rows.size(), 4u);
    for (const auto& [input, count] : rows) EXPECT_EQ(count, 200) << "input " << static_cast<int>(input);
  }
  EXPECT_TRUE(walk.at_end());
}

std::string name_of_kind(const ::testing::TestParamInfo<Kind>& kind) {
  if (kind.param == Kind::kNoFinalNormAndGelu) return "NoFinalNormAndGelu";
  return kind.param == Kind::kNormsBefore ? "NormsBefore" : "NormsAfter";
}
INSTANTIATE_TEST_SUITE_P(Kinds, LayerWalkOf,
                         ::testing::Values(Kind::kNormsBefore, Kind::kNormsAfter, Kind::kNoFinalNormAndGelu),
                         name_of_kind);

}  // namespace layer_walk_test
}  // namespace optserve::engine
