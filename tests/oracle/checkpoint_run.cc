// What a converted checkpoint serves, for oracles that know what it should.
//
//   checkpoint_run CHECKPOINT < request > answer
//
// The request is a JSON object: "prompts", lists of ids; "worlds", group sizes; "new_tokens", "min_new_tokens". The
// answer is an object with a list for each group size: {"tokens", "logprobs", "finished"} of each prompt. Tokens are
// the best ones; log-probabilities are those of all tokens after a prompt's first.
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "support/engine_group.h"

namespace optserve::test_support {
namespace {

using nlohmann::json;

std::vector<batching::SequenceRequest> requests_of(const json& asked) {
  std::vector<batching::SequenceRequest> requests;
  for (const json& prompt : asked.at("prompts")) {
    batching::SequenceRequest& request = requests.emplace_back();
    request.tokens = prompt.get<std::vector<TokenId>>();
    request.prompt_tokens = static_cast<int32_t>(request.tokens.size());
    request.max_new_tokens = asked.value("new_tokens", 0);
    request.prompt_logprobs = true;
    request.sampling.temperature = 0;
    request.sampling.min_new_tokens = asked.value("min_new_tokens", 0);
  }
  return requests;
}

json answer_of(const engine::Generation& generation) {
  std::vector<float> logprobs = generation.prompt_logprobs;
  logprobs.insert(logprobs.end(), generation.logprobs.begin(), generation.logprobs.end());
  return {{"tokens", generation.tokens}, {"logprobs", logprobs}, {"finished", static_cast<int>(generation.finished)}};
}

json run(const std::string& checkpoint, const json& asked) {
  engine::EngineOptions options;
  options.checkpoint = checkpoint;
  options.num_blocks = 80;
  options.max_sequences = 8;
  options.max_step_tokens = 50;  // long prompts go in chunks
  json answers;
  for (const int world : asked.at("worlds")) {
    const GroupKind group{world == 1 ? comm::RankKind::kSolo : comm::RankKind::kThreads, world};
    json& list = answers[std::to_string(world)] = json::array();
    run_engine_group(group, options, [&](engine::GroupLeader& leader, const engine::Engine& engine) {
      for (const engine::Generation& generation :
           engine::generate_all(leader, planner_options(engine), requests_of(asked))) {
        list.push_back(answer_of(generation));
      }
    });
  }
  return answers;
}

}  // namespace
}  // namespace optserve::test_support

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: checkpoint_run CHECKPOINT < request > answer\n";
    return 64;
  }
  try {
    const std::string request{std::istreambuf_iterator<char>(std::cin), {}};
    std::cout << optserve::test_support::run(argv[1], nlohmann::json::parse(request)) << "\n";
  } catch (const std::exception& error) {
    std::cerr << "checkpoint_run: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
