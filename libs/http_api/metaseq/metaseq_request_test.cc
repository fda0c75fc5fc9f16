#include "http_api/metaseq/metaseq_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "http_api/openai/request_fixture.h"

namespace optserve::http_api {
namespace metaseq_request_test {

using nlohmann::json;
using protocol::JobSpec;
using ::testing::ElementsAre;
using ::testing::SizeIs;

class MetaseqTest : public RequestTest {
 protected:
  Parsed<CompletionRequest> parse(const json& changes, const std::string& model = "story") {
    const json body = with({{"model", model}, {"prompt", "the end"}, {"max_tokens", 4}}, changes);
    return parse_metaseq(body.dump(), models_, test_context());
  }
  CompletionRequest good(const json& changes) { return value_of(parse(changes), changes); }
  void expect_error(const json& changes, const std::string& param, const std::string& model = "story") {
    expect_refused(parse(changes, model), changes, param);
  }
  json answer(const CompletionRequest& asked, const std::vector<TokenId>& ids) {
    CompletionAnswer answer(asked);
    const std::vector<JobSpec> jobs = asked.jobs();
    for (size_t i = 0; i < jobs.size(); ++i) answer.add(i, test_result(asked, jobs[i], ids, asked.model));
    return json::parse(metaseq_body(asked, answer));
  }
};

TEST_F(MetaseqTest, FieldsReachTheJob) {
  const JobSpec job = good({{"temperature", 0.7},
                            {"top_p", 0.9},
                            {"min_tokens", 2},
                            {"alpha_presence", 0.1},
                            {"alpha_frequency", 0.2},
                            {"alpha_presence_src", 0.3},
                            {"alpha_frequency_src", 0.4},
                            {"lambda_decay", 0.5},
                            {"omega_bound", 0.25},
                            {"stop", "x"},
                            {"seed", 3}})
                          .jobs()
                          .at(0);
  EXPECT_EQ(job.sampling.profile, sampling::SamplingProfile::kMetaseq);
  EXPECT_EQ(job.sampling.temperature, 0.7f) << "not rounded";
  EXPECT_EQ(job.sampling.top_p, 0.9f);
  EXPECT_EQ(job.sampling.min_new_tokens, 2);
  EXPECT_EQ(job.sampling.presence_penalty, 0.1f);
  EXPECT_EQ(job.sampling.frequency_penalty, 0.2f);
  EXPECT_EQ(job.sampling.prompt_presence_penalty, 0.3f);
  EXPECT_EQ(job.sampling.prompt_frequency_penalty, 0.4f);
  EXPECT_EQ(job.sampling.top_p_decay, 0.5f);
  EXPECT_EQ(job.sampling.top_p_min, 0.25f);
  EXPECT_EQ(job.sampling.top_p_decay_after, 1);
  EXPECT_THAT(job.rules.top_p_reset_ids, ElementsAre(byte_id('.'), byte_id('?'), byte_id('!')));
  EXPECT_THAT(job.stop, ElementsAre("x"));
  EXPECT_TRUE(job.include_stop);
  EXPECT_EQ(job.sampling.seed, 3u);
  EXPECT_EQ(good({{"top_p", 0}}).jobs()[0].sampling.temperature, 0);
  EXPECT_EQ(good(json::object()).jobs()[0].sampling.top_p_decay, 1);
}

TEST_F(MetaseqTest, IdsGetExactlyOneLeadingId) {
  EXPECT_THAT(good({{"prompt", {2, 2, 5, 2}}}).jobs()[0].prompt_ids, ElementsAre(2, 5));
  EXPECT_THAT(good({{"prompt", {5, 2, 6}}}).jobs()[0].prompt_ids, ElementsAre(2, 5, 2, 6));
  EXPECT_THAT(good({{"prompt", json::array({{2}, {5}})}}).jobs()[0].prompt_ids, ElementsAre(2));
}

TEST_F(MetaseqTest, WithoutMaxTokensTheOutputFillsTheContext) {
  EXPECT_EQ(good({{"max_tokens", nullptr}}).job.max_new_tokens, kTestContext - 3);
  EXPECT_EQ(good({{"max_tokens", nullptr}, {"prompt", {"a", "the end"}}}).job.max_new_tokens, kTestContext - 3);
  expect_error({{"max_tokens", nullptr}}, "max_tokens", "plain");
}

TEST_F(MetaseqTest, WhatMetaseqAcceptsSilentlyIsRefused) {
  expect_error({{"prompt", nullptr}}, "prompt");
  expect_error({{"promt", "x"}}, "promt");
  expect_error({{"prompt", std::vector<int>(62, 5)}}, "prompt");
  expect_error({{"temperature", -1}}, "temperature");
  expect_error({{"best_of", 65}}, "best_of");
  expect_error({{"alpha_presence", 3}}, "alpha_presence");
  expect_error({{"alpha_src_penalty_end_idx", 4}}, "alpha_src_penalty_end_idx");
  expect_error({{"lambda_decay", 0.5}}, "lambda_decay", "plain");
  expect_error({{"logprobs", 1}}, "logprobs", "plain");
  good({{"alpha_src_penalty_end_idx", -1}});
}

TEST_F(MetaseqTest, AnswersHaveItsForm) {
  const json body =
      answer(good({{"n", 2}, {"logprobs", 1}, {"echo", true}, {"prompt", "a"}}), {byte_id('b'), byte_id('c'), 2});
  EXPECT_EQ(body["object"], "text_completion");
  ASSERT_THAT(body["choices"], SizeIs(2));
  const json& choice = body["choices"][1];
  EXPECT_EQ(choice["text"], "abc");
  const json& lists = choice["logprobs"];
  EXPECT_EQ(lists["tokens"], json({"</s>", "a", "b", "c"})) << "the end of the text is not listed";
  EXPECT_EQ(lists["token_logprobs"], json({nullptr, -0.5, -1, -2}));
  EXPECT_EQ(lists["text_offset"], json({0, 0, 1, 2}));
  EXPECT_EQ(lists["top_logprobs"][0], nullptr);
  EXPECT_EQ(lists["top_logprobs"][2].size(), 2u);
  EXPECT_EQ(lists["finish_reason"], "stop");
  const json plain = answer(good(json::object()), {byte_id('b')});
  EXPECT_EQ(plain["choices"][0]["logprobs"]["top_logprobs"], nullptr);
  EXPECT_EQ(plain["choices"][0]["logprobs"]["finish_reason"], "length");
  EXPECT_FALSE(plain.contains("usage"));
}

// The request that tests of Metaseq itself send.
TEST_F(MetaseqTest, PromptsCanBeScored) {
  const json body = answer(good({{"prompt", "ab"},
                                 {"temperature", 1.0},
                                 {"top_p", 1.0},
                                 {"max_tokens", 0},
                                 {"min_tokens", 0},
                                 {"echo", true},
                                 {"logprobs", 0}}),
                           {});
  EXPECT_EQ(body["choices"][0]["logprobs"]["token_logprobs"], json({nullptr, -0.5, -1}));
}

}  // namespace metaseq_request_test
}  // namespace optserve::http_api
