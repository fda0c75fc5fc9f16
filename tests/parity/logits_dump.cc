// Writes tiny random checkpoints of every kind, and what the engine computes on them for random prompts, so that
// opt_reference.py can compute the same.
//   logits_dump FOLDER    makes FOLDER/<kind>/checkpoint and FOLDER/<kind>/cases.json
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>

#include "support/engine_group.h"
#include "support/tiny_model.h"

namespace optserve::test_support {
namespace {

constexpr uint64_t kSeed = 20;

std::vector<batching::SequenceRequest> random_requests(const model_spec::OptConfig& config) {
  std::mt19937_64 random(kSeed);
  std::vector<batching::SequenceRequest> requests;
  for (const int length : {1, 2, 15, 16, 17, 33, 64, 100}) {
    batching::SequenceRequest& request = requests.emplace_back();
    request.prompt_tokens = length;
    request.max_new_tokens = 20;
    request.prompt_logprobs = true;
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.tokens.push_back(2);
    while (static_cast<int>(request.tokens.size()) < length) {
      request.tokens.push_back(static_cast<TokenId>(random() % static_cast<uint64_t>(config.vocab_real)));
    }
  }
  return requests;
}

template <class T>
std::string list_text(const std::vector<T>& values) {
  std::string text = "[";
  char number[32];
  for (size_t i = 0; i < values.size(); ++i) {
    std::snprintf(number, sizeof number, "%.9g", static_cast<double>(values[i]));
    text += (i > 0 ? "," : "") + std::string(number);
  }
  return text + "]";
}

std::string cases_text(std::vector<batching::SequenceRequest> requests,
                       const std::vector<engine::Generation>& generations) {
  std::string text = "[";
  for (size_t i = 0; i < requests.size(); ++i) {
    std::vector<TokenId> tokens = requests[i].tokens;
    tokens.insert(tokens.end(), generations[i].tokens.begin(), generations[i].tokens.end());
    std::vector<float> logprobs = generations[i].prompt_logprobs;
    logprobs.insert(logprobs.end(), generations[i].logprobs.begin(), generations[i].logprobs.end());
    text += (i > 0 ? ",\n" : "\n") + std::string("{\"prompt_tokens\": ") + std::to_string(requests[i].prompt_tokens) +
            ", \"tokens\": " + list_text(tokens) + ", \"logprobs\": " + list_text(logprobs) + "}";
  }
  return text + "]";
}

void dump(const std::filesystem::path& folder, const model_spec::OptConfig& config) {
  std::filesystem::create_directories(folder);
  engine::EngineOptions options;
  options.checkpoint = folder / "checkpoint";
  options.num_blocks = 80;
  options.max_sequences = 8;
  options.max_step_tokens = 50;  // so that long prompts are cut into chunks
  write_random_checkpoint(options.checkpoint, config, kSeed, DType::kF32, 4);
  std::ofstream cases(folder / "cases.json");
  cases << "{\"groups\": {";
  for (const int world : {1, 2, 4}) {
    const GroupKind group{world == 1 ? comm::RankKind::kSolo : comm::RankKind::kThreads, world};
    run_engine_group(group, options, [&](engine::GroupLeader& leader, const engine::Engine& engine) {
      const auto requests = random_requests(config);
      const auto generations = engine::generate_all(leader, planner_options(engine), requests);
      cases << (world > 1 ? ",\n" : "\n") << '"' << group_name(group) << "\": " << cases_text(requests, generations);
    });
  }
  cases << "}}\n";
}

}  // namespace
}  // namespace optserve::test_support

int main(int argc, char** argv) {
  using namespace optserve::test_support;
  if (argc != 2) {
    std::fprintf(stderr, "usage: logits_dump FOLDER\n");
    return 2;
  }
  try {
    for (const auto& config : tiny_configs()) dump(std::filesystem::path(argv[1]) / config.name, config);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "logits_dump: %s\n", e.what());
    return 1;
  }
  return 0;
}
