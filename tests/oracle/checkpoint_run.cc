// What a converted checkpoint serves, for oracles that know what it should.
//
//   checkpoint_run CHECKPOINT < request > answer
//
// The request is a JSON object: "prompts", lists of ids; "worlds", group sizes; "new_tokens", "min_new_tokens". The
// answer is an object with a list for each group size: {"tokens", "logprobs", "finished"} of each prompt. Tokens are
// the best ones; log-probabilities are those of all tokens after a prompt's first. "texts" become "ids" as the served
// tokenizer makes them, and "decode", lists of ids, becomes "texts".
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "checkpoint/reader.h"
#include "support/engine_group.h"
#include "tokenizer/encoder.h"

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

// What optserve-tokenizer answers.
json run_tokenizer(const std::string& checkpoint, const json& asked) {
  const auto reader = checkpoint::CheckpointReader::open(checkpoint);
  if (!reader.ok()) throw Error(reader.refusal().message);
  const auto bpe =
      tokenizer::Bpe::load(reader.value().vocab_path(), reader.value().merges_path(), reader.value().added_path());
  if (!bpe.ok()) throw Error(bpe.refusal().message);
  tokenizer::Encoder encoder(bpe.value());
  json answers = {{"ids", json::array()}, {"texts", json::array()}};
  for (const json& text : asked.value("texts", json::array())) {
    std::vector<TokenId> ids;
    if (reader.value().config().leads_with_bos) ids.push_back(reader.value().config().bos_id);
    if (Status status = encoder.encode(text.get<std::string>(), ids); !status.ok()) {
      throw Error(status.refusal().message);
    }
    answers["ids"].push_back(ids);
  }
  for (const json& ids : asked.value("decode", json::array())) {
    answers["texts"].push_back(bpe.value().decode(ids.get<std::vector<TokenId>>()));
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
    const auto asked = nlohmann::json::parse(request);
    std::cout << (asked.contains("worlds") ? optserve::test_support::run(argv[1], asked)
                                           : optserve::test_support::run_tokenizer(argv[1], asked))
              << "\n";
  } catch (const std::exception& error) {
    std::cerr << "checkpoint_run: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
