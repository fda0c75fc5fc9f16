#include "http_api/openai/completion_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "http_api/openai/request_fixture.h"

namespace optserve::http_api {
namespace completion_answer_test {

using nlohmann::json;
using protocol::JobResult;
using protocol::JobSpec;

class CompletionAnswerTest : public RequestTest {
 protected:
  CompletionRequest request(const json& changes) const { return completion(changes); }
  // The answer if job i has the i-th output; further jobs have the last one.
  json answer(const CompletionRequest& asked, const std::vector<std::vector<TokenId>>& outputs) {
    const std::vector<JobSpec> jobs = asked.jobs();
    CompletionAnswer answer(asked);
    for (size_t i = jobs.size(); i-- > 0;) {
      EXPECT_FALSE(answer.is_complete());
      answer.add(i, test_result(asked, jobs[i], outputs[std::min(i, outputs.size() - 1)], story()));
    }
    EXPECT_TRUE(answer.is_complete());
    EXPECT_FALSE(answer.error());
    return json::parse(answer.body());
  }
};

TEST_F(CompletionAnswerTest, IsOpenAisObject) {
  const json body = answer(request({}), {ids_of(" the")});
  EXPECT_EQ(body, json::parse(R"({"id": "cmpl-r1", "object": "text_completion", "created": 1700000001,
      "model": "story", "system_fingerprint": "fp_aaaaaaaaaaaa",
      "choices": [{"index": 0, "text": " the", "logprobs": null, "finish_reason": "length", "stop_reason": null}],
      "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}})"));
}

TEST_F(CompletionAnswerTest, ChoicesStandInTheOrderOfPromptsAndSamples) {
  const json body = answer(request({{"prompt", {"a", "b"}}, {"n", 2}}),
                           {ids_of("one"), ids_of("two"), ids_of("three"), ids_of("four")});
  ASSERT_EQ(body["choices"].size(), 4u);
  const char* texts[] = {"one", "two", "three", "four"};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(body["choices"][i]["index"], i);
    EXPECT_EQ(body["choices"][i]["text"], texts[i]);
  }
  EXPECT_EQ(body["usage"]["prompt_tokens"], 4) << "each prompt counts once";
}

TEST_F(CompletionAnswerTest, BestOfChoosesByLogprobPerToken) {
  const CompletionRequest asked = request({{"n", 2}, {"best_of", 3}});
  const std::vector<JobSpec> jobs = asked.jobs();
  CompletionAnswer answer(asked);
  const std::vector<std::vector<float>> logprobs = {{-3}, {-1, -1, -1, -1}, {-2, -2}};
  const char* texts[] = {"a", "abcd", "xq"};
  for (size_t i = 0; i < 3; ++i) {
    JobResult result = test_result(asked, jobs[i], ids_of(texts[i]), story());
    ASSERT_EQ(result.ids.size(), logprobs[i].size());
    result.logprobs = logprobs[i];
    answer.add(i, result);
  }
  const json body = json::parse(answer.body());
  EXPECT_EQ(body["choices"][0]["text"], "abcd") << "the longest, with the smallest sum";
  EXPECT_EQ(body["choices"][1]["text"], "xq");
  EXPECT_EQ(body["choices"][1]["index"], 1);
  EXPECT_EQ(body["choices"][0]["logprobs"], nullptr) << "nobody asked for them";
  EXPECT_EQ(body["usage"]["completion_tokens"], 7) << "all outputs were computed";
}

TEST_F(CompletionAnswerTest, ChoicesThatCannotDifferAreCopies) {
  const json body = answer(request({{"n", 3}, {"temperature", 0}}), {ids_of("once")});
  ASSERT_EQ(body["choices"].size(), 3u);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(body["choices"][i]["index"], i);
    EXPECT_EQ(body["choices"][i]["text"], "once");
  }
}

TEST_F(CompletionAnswerTest, HypothesesOfABeamSearchAreChoices) {
  const CompletionRequest asked = request({{"n", 2}, {"beam_width", 3}, {"echo", true}});
  CompletionAnswer answer(asked);
  JobResult result = test_result(asked, asked.jobs()[0], ids_of("best"), story());
  for (const char* text : {"best", "second", "third"}) {
    result.hypotheses.push_back({ids_of(text), -1, -1, sampling::FinishReason::kEndOfText, text});
  }
  answer.add(0, result);
  const json body = json::parse(answer.body());
  ASSERT_EQ(body["choices"].size(), 2u);
  EXPECT_EQ(body["choices"][0]["text"], "the endbest");
  EXPECT_EQ(body["choices"][1]["text"], "the endsecond");
  EXPECT_EQ(body["choices"][1]["finish_reason"], "stop");
}

TEST_F(CompletionAnswerTest, LogprobsHaveOneEntryForEachTokenTheEndIncluded) {
  const json body = answer(request({{"logprobs", 2}}), {{byte_id('a'), byte_id('b'), 2}});
  const json& lists = body["choices"][0]["logprobs"];
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["choices"][0]["text"], "ab");
  EXPECT_EQ(lists["tokens"], json({"a", "b", "</s>"}));
  EXPECT_EQ(lists["token_logprobs"], json({-1, -2, -3}));
  EXPECT_EQ(lists["text_offset"], json({0, 1, 2}));
  for (const json& top : lists["top_logprobs"]) EXPECT_EQ(top.size(), 3u) << "two best ones and the drawn one";
  EXPECT_EQ(lists["top_logprobs"][0]["a"], -1);
  EXPECT_EQ(body["usage"]["completion_tokens"], 3);
}

// What lm-eval requests, and the parts that it reads: token_logprobs[ctxlen:-1] and top_logprobs[ctxlen:-1].
TEST_F(CompletionAnswerTest, ScoresOfAPromptAndExactlyOneToken) {
  const std::vector<TokenId> prompt = {2, byte_id('a'), byte_id('b')};
  const json body = answer(
      request(
          {{"prompt", prompt}, {"max_tokens", 1}, {"logprobs", 0}, {"echo", true}, {"temperature", 0}, {"seed", 1234}}),
      {{byte_id('c')}});
  const json& choice = body["choices"][0];
  EXPECT_EQ(choice["text"], "abc");
  EXPECT_EQ(choice["logprobs"], json::parse(R"({"tokens": ["</s>", "a", "b", "c"],
      "token_logprobs": [null, -0.5, -1, -1], "text_offset": [0, 0, 1, 2],
      "top_logprobs": [null, {"a": -0.5}, {"b": -1}, {"c": -1}]})"));
  const json best =
      answer(request({{"prompt", prompt}, {"max_tokens", 1}, {"logprobs", 1}, {"echo", true}}), {{byte_id('c')}});
  const std::string first = story().texts->text(40);
  EXPECT_EQ(best["choices"][0]["logprobs"]["top_logprobs"],
            json({nullptr, {{first, -0.25}, {"a", -0.5}}, {{first, -0.25}, {"b", -1}}, {{first, -0.25}, {"c", -1}}}));
}

TEST_F(CompletionAnswerTest, APromptTokenThatIsAmongTheBestStandsThereOnce) {
  const CompletionRequest asked =
      request({{"prompt", {2, byte_id('a')}}, {"logprobs", 2}, {"echo", true}, {"prompt_logprobs", 3}});
  CompletionAnswer answer(asked);
  JobResult result = test_result(asked, asked.jobs()[0], {byte_id('c')}, story());
  result.prompt_best = {{{byte_id('a'), -0.5f}, {41, -1}, {42, -1.5f}}};
  answer.add(0, result);
  const json choice = json::parse(answer.body())["choices"][0];
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][1], json({{"a", -0.5}, {story().texts->text(41), -1}}))
      << "as many as logprobs asks for";
  EXPECT_EQ(choice["prompt_logprobs"][1].size(), 3u) << "as many as prompt_logprobs asks for";
  EXPECT_EQ(choice["prompt_logprobs"][1]["42"]["logprob"], -1.5);
}

TEST_F(CompletionAnswerTest, ScoringAloneGivesThePromptsEntries) {
  const json body = answer(request({{"prompt", "ab"}, {"max_tokens", 0}, {"logprobs", 0}, {"echo", true}}), {{}});
  EXPECT_EQ(body["choices"][0]["text"], "ab");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(body["choices"][0]["logprobs"]["tokens"], json({"</s>", "a", "b"}));
  EXPECT_EQ(body["choices"][0]["logprobs"]["text_offset"], json({0, 0, 1}));
  EXPECT_EQ(body["usage"]["completion_tokens"], 0);
}

TEST_F(CompletionAnswerTest, BytesOfACharacterAreNamedAndItsOffsetIsOne) {
  // U+00E9 in two tokens, then a letter, then a byte that is no character.
  const json body = answer(request({{"logprobs", 0}}), {{byte_id(0xc3), byte_id(0xa9), byte_id('z'), byte_id(0xff)}});
  const json& lists = body["choices"][0]["logprobs"];
  EXPECT_EQ(body["choices"][0]["text"], "\u00e9z\ufffd");
  EXPECT_EQ(lists["tokens"], json({"bytes:\\xc3", "bytes:\\xa9", "z", "bytes:\\xff"}));
  EXPECT_EQ(lists["text_offset"], json({0, 0, 1, 2}));
}

TEST_F(CompletionAnswerTest, EchoedOffsetsGoOnInCharacters) {
  const json body = answer(request({{"prompt", "\u00e9"}, {"logprobs", 0}, {"echo", true}}), {ids_of("ab")});
  const json& choice = body["choices"][0];
  EXPECT_EQ(choice["text"], "\u00e9ab");
  EXPECT_EQ(choice["logprobs"]["text_offset"].back(), 2);
}

TEST_F(CompletionAnswerTest, InfinityIsANumber) {
  const CompletionRequest asked = request({{"logprobs", 0}});
  CompletionAnswer answer(asked);
  JobResult result = test_result(asked, asked.jobs()[0], {byte_id('a')}, story());
  result.logprobs[0] = -INFINITY;
  answer.add(0, result);
  EXPECT_EQ(json::parse(answer.body())["choices"][0]["logprobs"]["token_logprobs"][0], -9999.0);
}

TEST_F(CompletionAnswerTest, TokensCanBeNamedByTheirIds) {
  const json body = answer(request({{"logprobs", 1}, {"return_tokens_as_token_ids", true}}), {{byte_id('a')}});
  EXPECT_EQ(body["choices"][0]["logprobs"]["tokens"][0], "token_id:" + std::to_string(byte_id('a')));
  EXPECT_TRUE(body["choices"][0]["logprobs"]["top_logprobs"][0].contains("token_id:40"));
}

TEST_F(CompletionAnswerTest, ExtrasComeOnlyWhereTheyAreAskedFor) {
  const std::vector<TokenId> prompt = {2, byte_id('a')};
  const json body = answer(
      request({{"prompt", prompt}, {"return_token_ids", true}, {"prompt_logprobs", 0}, {"return_metrics", true}}),
      {{byte_id('b'), 2}});
  const json& choice = body["choices"][0];
  EXPECT_EQ(choice["token_ids"], json({byte_id('b'), 2}));
  EXPECT_EQ(choice["prompt_token_ids"], json(prompt));
  EXPECT_EQ(choice["prompt_logprobs"][0], nullptr);
  EXPECT_EQ(choice["prompt_logprobs"][1][std::to_string(byte_id('a'))],
            json::parse(R"({"logprob": -0.5, "decoded_token": "a"})"));
  EXPECT_EQ(body["metrics"], json::parse(R"({"queue_time_ms": 2, "time_to_first_token_ms": 10,
      "generation_time_ms": 50, "mean_itl_ms": 50, "tokens_per_second": 40})"));
  const json plain = answer(request({}), {{2}});
  for (const char* extra : {"token_ids", "prompt_token_ids", "prompt_logprobs"}) {
    EXPECT_FALSE(plain["choices"][0].contains(extra)) << extra;
  }
  EXPECT_FALSE(plain.contains("metrics"));
}

TEST_F(CompletionAnswerTest, TheStopReasonIsTheStringOrIdThatEndedTheOutput) {
  const auto reason = [&](const json& changes, const std::string& whole, const std::string& text) {
    const CompletionRequest asked = request(changes);
    CompletionAnswer answer(asked);
    JobResult result = test_result(asked, asked.jobs()[0], ids_of(whole), story());
    result.text = text;
    result.finish_reason = sampling::FinishReason::kStop;
    answer.add(0, result);
    const json body = json::parse(answer.body());
    EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
    return body["choices"][0]["stop_reason"];
  };
  EXPECT_EQ(reason({{"stop", {"end", "on"}}}, "the end", "the "), "end");
  EXPECT_EQ(reason({{"stop", {"e", "end"}}}, "the end", "the "), "end") << "of several the longest";
  EXPECT_EQ(reason({{"stop", {"e", "d"}}, {"include_stop_str_in_output", true}}, "the end", "the end"), "d");
  EXPECT_EQ(reason({{"stop_token_ids", {byte_id('x')}}, {"stop", {"a", "b"}}}, "thex", "the"), byte_id('x'));
}

TEST_F(CompletionAnswerTest, AJobThatFailsIsTheErrorOfAll) {
  const CompletionRequest asked = request({{"n", 2}});
  const std::vector<JobSpec> jobs = asked.jobs();
  CompletionAnswer answer(asked);
  answer.add(0, test_result(asked, jobs[0], ids_of("good"), story()));
  JobResult bad = test_result(asked, jobs[1], {}, story());
  bad.state = protocol::JobState::kExpired;
  answer.add(1, bad);
  ASSERT_TRUE(answer.error());
  EXPECT_EQ(answer.error()->status, 504);
}

TEST_F(CompletionAnswerTest, BackgroundIsAnsweredWithTheJobs) {
  const CompletionRequest asked = request({{"n", 2}, {"background", true}});
  std::vector<protocol::SubmitOutcome> outcomes(2);
  outcomes[0].job = JobId{{1}};
  outcomes[1].job = JobId{{2}};
  outcomes[1].position = 4;
  outcomes[1].eta_ms = 700;
  const json body = json::parse(background_body(asked, outcomes));
  EXPECT_EQ(body["id"], "cmpl-r1");
  EXPECT_EQ(body["group"], "cmpl-r1");
  EXPECT_EQ(body["jobs"][0]["job"], (JobId{{1}}.hex()));
  EXPECT_EQ(body["jobs"][1]["position"], 4);
  EXPECT_EQ(body["jobs"][1]["eta_ms"], 700);
}

}  // namespace completion_answer_test
}  // namespace optserve::http_api
