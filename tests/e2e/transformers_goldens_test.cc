// What transformers' generate() gives for the demo model, through real processes: the goldens that came with the model,
// and tests/data/generate_goldens.json, which tests/parity/make_generate_goldens.py makes.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "demo_stack.h"
#include "support/demo_model.h"
#include "support/sanitized.h"

namespace optserve::test_support {
namespace transformers_goldens_test {

using nlohmann::json;
using protocol::JobSpec;

constexpr int kEvery = kSanitized ? 6 : 1;  // of the goldens, one in so many is compared

class TransformersGenerate : public DemoStackTest {
 protected:
};

int early_stopping(const json& setting) {
  if (setting.is_string()) return 2;  // "never"
  return setting.get<bool>() ? 1 : 0;
}

JobSpec job_of(const json& golden) {
  JobSpec job;
  job.model = "demo";
  job.prompt_ids = golden.at("prompt_ids").get<std::vector<TokenId>>();
  job.max_new_tokens = golden.at("max_new_tokens");
  job.sampling.temperature = 0;
  job.sampling.min_new_tokens = golden.value("min_new_tokens", 0);
  job.sampling.repetition_penalty = golden.value("repetition_penalty", 1.0f);
  job.sampling.beam_width = golden.value("num_beams", 1);
  if (job.sampling.is_beam_search()) {
    job.sampling.beam_length_penalty = golden.at("length_penalty");
    job.sampling.beam_early_stopping = early_stopping(golden.at("early_stopping"));
  }
  const json biases = golden.value("sequence_bias", json::object());
  for (const auto& [id, bias] : biases.items()) {
    job.rules.logit_bias.push_back({static_cast<TokenId>(std::stoi(id)), bias.get<float>()});
  }
  job.rules.bad_words = golden.value("bad_words_ids", std::vector<std::vector<TokenId>>{});
  return job;
}

// The same hypotheses in the same order, but those whose scores are nearly equal may have changed places, or the last
// one its place with one that was left out.
void expect_hypotheses(const json& golden, const std::vector<protocol::Hypothesis>& found) {
  constexpr float kTie = 2e-4f;
  const auto ids = golden.at("ids").get<std::vector<std::vector<TokenId>>>();
  const auto scores = golden.at("scores").get<std::vector<float>>();
  ASSERT_EQ(found.size(), ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_NEAR(found[i].score, scores[i], 1e-3f + 1e-3f * std::abs(scores[i])) << "hypothesis " << i;
    const bool is_tied =
        (i > 0 && scores[i - 1] - scores[i] < kTie) || (i + 1 < ids.size() && scores[i] - scores[i + 1] < kTie);
    if (!is_tied) {
      EXPECT_EQ(found[i].ids, ids[i]) << "hypothesis " << i;
    }
  }
}

TEST_F(TransformersGenerate, ManySettingsGiveItsIds) {
  const json goldens = json::parse(read_file(OPTSERVE_TEST_DATA "/generate_goldens.json"));
  const auto client = stack_->client();
  int seen = 0, searches = 0;
  for (const json& golden : goldens.at("cases")) {
    if (seen++ % kEvery != 0) continue;
    SCOPED_TRACE(golden.dump());
    const JobSpec job = job_of(golden);
    const auto result = client->generate(job);
    ASSERT_TRUE(result.ok()) << result.refusal().message;
    ASSERT_EQ(result.value().state, protocol::JobState::kSucceeded) << result.value().message;
    EXPECT_EQ(result.value().ids, golden.at("ids").at(0).get<std::vector<TokenId>>());
    if (!job.sampling.is_beam_search()) continue;
    ++searches;
    expect_hypotheses(golden, result.value().hypotheses);
  }
  EXPECT_GE(searches, 30 / kEvery);
}

JobSpec job_of(const DemoGenerate& golden) {
  JobSpec job;
  job.model = "demo";
  job.prompt_ids = golden.prompt_ids;
  job.max_new_tokens = static_cast<int32_t>(golden.ids.size());
  job.sampling.temperature = 0;
  return job;
}

TEST_F(TransformersGenerate, RepetitionPenaltyGivesTheIdsOfTransformers) {
  const auto client = stack_->client();
  int seen = 0, compared = 0;
  for (const DemoGenerate& golden : demo_goldens().generate) {
    if (golden.repetition_penalty == 1.0f || seen++ % kEvery != 0) continue;
    JobSpec job = job_of(golden);
    job.sampling.repetition_penalty = golden.repetition_penalty;
    job.sampling.ignore_eos = true;
    const auto result = client->generate(job);
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result.value().ids, golden.ids);
    ++compared;
  }
  EXPECT_EQ(compared, 6 / kEvery);
}

TEST_F(TransformersGenerate, BeamSearchGivesTheIdsOfTransformers) {
  const auto client = stack_->client();
  int seen = 0, compared = 0;
  for (const DemoGenerate& golden : demo_goldens().generate) {
    if (golden.num_beams == 1 || seen++ % kEvery != 0) continue;
    JobSpec job = job_of(golden);
    job.sampling.beam_width = golden.num_beams;
    job.sampling.beam_length_penalty = golden.length_penalty;
    job.sampling.beam_early_stopping = golden.early_stopping ? 1 : 0;
    const auto result = client->generate(job);
    ASSERT_TRUE(result.ok());
    EXPECT_EQ(result.value().ids, golden.ids);
    EXPECT_EQ(result.value().hypotheses.size(), static_cast<size_t>(golden.num_beams));
    ++compared;
  }
  EXPECT_EQ(compared, 12 / kEvery);
}

}  // namespace transformers_goldens_test
}  // namespace optserve::test_support
