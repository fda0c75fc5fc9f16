#include "http_api/openai/completion_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "base/limits.h"
#include "http_api/openai/completion_fields.h"
#include "http_api/openai/request_fixture.h"
#include "protocol/validate.h"

namespace optserve::http_api {
namespace completion_request_test {

using nlohmann::json;
using protocol::JobSpec;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

class CompletionRequestTest : public RequestTest {
 protected:
  Parsed<CompletionRequest> parse(const json& body) { return parse_completion(body.dump(), models_, context_); }
  // A good body with some fields added or replaced.
  static json body(const json& changes) { return with({{"model", "story"}, {"prompt", "the end"}}, changes); }
  CompletionRequest good(const json& changes) { return value_of(parse(body(changes)), changes); }
  void expect_error(const json& changes, const std::string& param, const std::string& message = "", int status = 400) {
    expect_refused(parse(body(changes)), changes, param, message, status);
  }

  RequestContext context_ = test_context();
};

TEST_F(CompletionRequestTest, DefaultsAreThoseOfTheReference) {
  const CompletionRequest request = good({});
  EXPECT_EQ(request.id, "cmpl-r1");
  EXPECT_EQ(request.created, context_.created);
  EXPECT_FALSE(request.stream || request.echo || request.background || request.logprobs);
  const std::vector<JobSpec> jobs = request.jobs();
  ASSERT_THAT(jobs, SizeIs(1));
  EXPECT_EQ(jobs[0].prompt, "the end");
  EXPECT_THAT(jobs[0].prompt_ids, IsEmpty());
  EXPECT_EQ(jobs[0].max_new_tokens, 16);
  EXPECT_EQ(jobs[0].sampling.temperature, 1.0f);
  EXPECT_EQ(jobs[0].sampling.logprobs, -1);
  EXPECT_EQ(jobs[0].on_disconnect, protocol::OnDisconnect::kCancel);
  EXPECT_EQ(jobs[0].ttl_ms, 600'000);
  EXPECT_EQ(jobs[0].key, "") << "the client library makes one";
  EXPECT_EQ(jobs[0].group, "");
}

TEST_F(CompletionRequestTest, EveryFieldMayBeNull) {
  json all;
  for (const FieldInfo& field : completion_fields()) {
    if (field.name != "model" && field.name != "prompt") all[std::string(field.name)] = nullptr;
  }
  EXPECT_EQ(good(all).jobs(), good({}).jobs());
}

TEST_F(CompletionRequestTest, EveryFieldTakesItsDefaultAndNoOtherType) {
  for (const FieldInfo& field : completion_fields()) {
    const std::string name(field.name);
    if (name == "model" || name == "prompt") continue;
    good({{name, json::parse(field.fallback)}});
    if (field.use == FieldUse::kIgnored) continue;
    std::vector<json> bad{json::object({{"a", 1}}), json::array({json::array()})};
    if (field.kind != FieldKind::kBoolean) bad.push_back(true);
    if (field.kind != FieldKind::kString && field.kind != FieldKind::kStringOrList) bad.push_back("7");
    if (field.kind != FieldKind::kNumber) bad.push_back(1.5);
    for (const json& value : bad) {
      if (!field.neutral.empty() && value == json::parse(field.neutral)) continue;
      const Parsed<CompletionRequest> parsed = parse(body({{name, value}}));
      ASSERT_FALSE(parsed.ok()) << name << " " << value;
      EXPECT_THAT(parsed.error().param, StartsWith(name)) << value << ": " << parsed.error().message;
      EXPECT_EQ(parsed.error().status, 400);
    }
  }
}

TEST_F(CompletionRequestTest, EveryNumberHasItsRange) {
  // These allow extreme values of other fields. Combinations have a test of their own.
  const json companions{{"max_tokens", 1}, {"echo", true}};
  int checked = 0;
  for (const FieldInfo& field : completion_fields()) {
    if (field.kind != FieldKind::kNumber && field.kind != FieldKind::kInteger) continue;
    const std::string name(field.name);
    const double step = field.kind == FieldKind::kInteger ? 1 : 0.001;
    const auto value = [&](double number) {
      return field.kind == FieldKind::kInteger ? json(static_cast<int64_t>(number)) : json(number);
    };
    for (const double outside : {field.min - step, field.max + step}) {
      json changes = companions;
      changes[name] = value(outside);
      expect_error(changes, name, name + " is ");
    }
    for (const double inside : {field.min + (field.min_excluded ? step : 0), field.max}) {
      json changes = companions;
      changes[name] = value(inside);
      const Parsed<CompletionRequest> parsed = parse(body(changes));
      // A field that is refused because of other fields is refused for a different reason.
      const std::string message = parsed.ok() ? "" : parsed.error().message;
      EXPECT_THAT(message,
                  ::testing::Not(::testing::ContainsRegex("^" + name + " is [^,]*, expected (more than )?-?[0-9]")));
    }
    ++checked;
  }
  EXPECT_GT(checked, 20);
}

TEST_F(CompletionRequestTest, FieldsReachTheJobs) {
  const CompletionRequest request = good({{"temperature", 0.5},
                                          {"top_p", 0.9},
                                          {"top_k", 5},
                                          {"min_p", 0.1},
                                          {"typical_p", 0.8},
                                          {"repetition_penalty", 1.5},
                                          {"presence_penalty", -2},
                                          {"frequency_penalty", 2},
                                          {"min_tokens", 3},
                                          {"max_tokens", 7.0},
                                          {"ignore_eos", true},
                                          {"seed", 9},
                                          {"logprobs", 2},
                                          {"profile", "metaseq"},
                                          {"stop", "x"},
                                          {"stop_token_ids", {5, 6}},
                                          {"allowed_token_ids", {7, 8}},
                                          {"logit_bias", {{"9", -100}, {"10", 1.5}}},
                                          {"bad_words", {"no"}},
                                          {"include_stop_str_in_output", true},
                                          {"priority", 4},
                                          {"deadline_ms", 1'000},
                                          {"queue_timeout_ms", 500},
                                          {"user", "ann"}});
  const JobSpec job = request.jobs().at(0);
  EXPECT_EQ(job.sampling.temperature, 0.5f);
  EXPECT_EQ(job.sampling.top_p, 0.9f);
  EXPECT_EQ(job.sampling.top_k, 5);
  EXPECT_EQ(job.sampling.min_p, 0.1f);
  EXPECT_EQ(job.sampling.typical_p, 0.8f);
  EXPECT_EQ(job.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(job.sampling.presence_penalty, -2.0f);
  EXPECT_EQ(job.sampling.frequency_penalty, 2.0f);
  EXPECT_EQ(job.sampling.min_new_tokens, 3);
  EXPECT_EQ(job.max_new_tokens, 7);
  EXPECT_TRUE(job.sampling.ignore_eos);
  EXPECT_EQ(job.sampling.seed, 9u);
  EXPECT_EQ(job.sampling.logprobs, 2);
  EXPECT_EQ(job.sampling.profile, sampling::SamplingProfile::kMetaseq);
  EXPECT_THAT(job.stop, ElementsAre("x"));
  EXPECT_THAT(job.rules.stop_ids, ElementsAre(5, 6));
  EXPECT_THAT(job.rules.allowed_ids, ElementsAre(7, 8));
  EXPECT_THAT(job.rules.logit_bias, ElementsAre(sampling::TokenBias{10, 1.5f}, sampling::TokenBias{9, -100}));
  EXPECT_THAT(job.bad_words, ElementsAre("no"));
  EXPECT_TRUE(job.include_stop);
  EXPECT_EQ(job.priority, 4);
  EXPECT_EQ(job.ttl_ms, 1'000);
  EXPECT_EQ(job.queue_ms, 500);
  EXPECT_EQ(job.tenant, "ann");
  EXPECT_EQ(good({{"top_k", -1}}).jobs()[0].sampling.top_k, 0) << "vLLM's -1 means all";
  EXPECT_THAT(good({{"stop", json::array()}}).jobs()[0].stop, IsEmpty());
}

TEST_F(CompletionRequestTest, PromptsHaveFourForms) {
  const auto prompts = [&](const json& prompt) { return good({{"prompt", prompt}}).jobs(); };
  EXPECT_EQ(prompts("a")[0].prompt, "a");
  EXPECT_EQ(prompts({"a", "b"})[1].prompt, "b");
  EXPECT_THAT(prompts({2, 5})[0].prompt_ids, ElementsAre(2, 5));
  EXPECT_THAT(prompts(json::array({{2, 5}, {6}}))[1].prompt_ids, ElementsAre(6)) << "no leading id is added to ids";
  for (const json& empty : {json(nullptr), json("")}) {
    const std::vector<JobSpec> jobs = prompts(empty);
    ASSERT_THAT(jobs, SizeIs(1));
    EXPECT_THAT(jobs[0].prompt_ids, ElementsAre(2)) << "the leading id alone";
  }
  EXPECT_THAT(prompts({"", "a"})[0].prompt_ids, ElementsAre(2));

  for (const json& bad : {json(7), json(true), json::object(), json::array(), json::array({"a", 5}),
                          json::array({5, "a"}), json::array({json::array()}), json::array({json::array({5}), "a"}),
                          json::array({-1}), json::array({1.5}), json::array({nullptr}), json::array({300}),
                          json::array({json::array({300})}), json::array({true}), json::array({1 << 30})}) {
    const Parsed<CompletionRequest> parsed = parse(body({{"prompt", bad}}));
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_THAT(parsed.error().param, StartsWith("prompt")) << bad;
  }
  json without = body({});
  without.erase("prompt");
  EXPECT_EQ(parse(without).error().code, "missing_required_parameter");
}

TEST_F(CompletionRequestTest, ChoicesAreJobsPromptByPromptWithSeedsThatFollow) {
  const CompletionRequest request = good({{"prompt", {"a", "b"}}, {"n", 2}, {"seed", 100}});
  const std::vector<JobSpec> jobs = request.jobs();
  ASSERT_THAT(jobs, SizeIs(4));
  EXPECT_EQ(request.num_choices(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(jobs[i].prompt, i < 2 ? "a" : "b");
    EXPECT_EQ(jobs[i].sampling.seed, 100 + i % 2) << "a seed that is given is that of every prompt";
    EXPECT_EQ(jobs[i].group, "cmpl-r1");
  }
  std::set<uint64_t> seeds;
  for (const JobSpec& job : good({{"prompt", {"a", "a"}}, {"n", 2}}).jobs()) seeds.insert(job.sampling.seed);
  EXPECT_THAT(seeds, SizeIs(4)) << "equal prompts get different outputs";
  EXPECT_EQ(good({{"seed", -1}}).jobs()[0].sampling.seed, UINT64_MAX);
  EXPECT_EQ(good({{"seed", UINT64_MAX}}).jobs()[0].sampling.seed, UINT64_MAX);
  expect_error({{"seed", 1.5}}, "seed");
}

TEST_F(CompletionRequestTest, RepeatedRequestsWithAKeyAreTheSameJobs) {
  const json changes{{"prompt", {"a", "b"}}, {"n", 2}, {"idempotency_key", "once more"}};
  const std::vector<JobSpec> first = good(changes).jobs();
  context_.request_id = "r2";
  context_.random = 99;
  EXPECT_EQ(good(changes).jobs(), first);
  std::set<std::string> keys;
  for (const JobSpec& job : first) keys.insert(job.key);
  EXPECT_THAT(keys, SizeIs(4));
  context_.idempotency_key = "from-the-header";
  EXPECT_EQ(good({}).jobs()[0].key, "from-the-header");
  EXPECT_EQ(good({{"idempotency_key", "from-the-body"}}).jobs()[0].key, "from-the-body");
  context_.idempotency_key = std::string(200, 'x');
  EXPECT_LE(good({{"n", 64}}).jobs()[63].key.size(), limits::kKeyBytesMax);
}

TEST_F(CompletionRequestTest, BestOfIsAtLeastNAndNotStreamed) {
  const CompletionRequest request = good({{"n", 2}, {"best_of", 5}});
  EXPECT_EQ(request.num_jobs(), 5u);
  EXPECT_EQ(request.num_choices(), 2u);
  EXPECT_EQ(request.jobs()[0].sampling.logprobs, 0) << "they are compared by their log-probabilities";
  expect_error({{"n", 3}, {"best_of", 2}}, "best_of", "at least n, which is 3");
  expect_error({{"best_of", 2}, {"stream", true}}, "best_of");
  good({{"best_of", 2}, {"n", 2}, {"stream", true}});
}

TEST_F(CompletionRequestTest, ChoicesThatCannotDifferAreOneJob) {
  for (const json& changes : {json{{"n", 3}, {"temperature", 0}}, json{{"n", 3}, {"top_k", 1}},
                              json{{"n", 3}, {"max_tokens", 0}, {"echo", true}}}) {
    const CompletionRequest request = good(changes);
    EXPECT_TRUE(request.is_shared()) << changes;
    EXPECT_THAT(request.jobs(), SizeIs(1)) << changes;
    EXPECT_EQ(request.num_choices(), 3u);
  }
}

TEST_F(CompletionRequestTest, BeamSearchIsOneJobForAllChoices) {
  const CompletionRequest request = good({{"use_beam_search", true}, {"n", 3}, {"length_penalty", 0.5}});
  ASSERT_THAT(request.jobs(), SizeIs(1));
  EXPECT_EQ(request.jobs()[0].sampling.beam_width, 3);
  EXPECT_EQ(request.jobs()[0].sampling.beam_length_penalty, 0.5f);
  EXPECT_EQ(good({{"beam_width", 4}}).jobs()[0].sampling.beam_width, 4);
  EXPECT_EQ(good({{"use_beam_search", true}}).jobs()[0].sampling.temperature, 0) << "one beam is the greedy choice";
  expect_error({{"beam_width", 2}, {"n", 3}}, "n", "at most beam_width");
  expect_error({{"beam_width", 2}, {"temperature", 0.7}}, "temperature", "in a beam search");
  expect_error({{"beam_width", 2}, {"top_p", 0.7}}, "top_p", "in a beam search");
  expect_error({{"beam_width", 2}, {"prompt_logprobs", 0}}, "prompt_logprobs");
}

TEST_F(CompletionRequestTest, ScoringNeedsEcho) {
  const CompletionRequest request = good({{"max_tokens", 0}, {"echo", true}, {"logprobs", 0}, {"prompt", {2, 5, 6}}});
  EXPECT_TRUE(request.jobs()[0].prompt_logprobs);
  EXPECT_EQ(request.jobs()[0].max_new_tokens, 0);
  EXPECT_TRUE(good({{"max_tokens", 0}, {"echo", true}}).jobs()[0].prompt_logprobs) << "the prompt is computed at least";
  EXPECT_FALSE(good({{"echo", true}}).jobs()[0].prompt_logprobs) << "nobody asked for the log-probabilities";
  const auto best = [this](const json& fields) { return good(fields).jobs()[0].prompt_best; };
  EXPECT_EQ(request.jobs()[0].prompt_best, 0);
  EXPECT_EQ(best({{"logprobs", 5}}), 0) << "without echo the prompt's places are not part of the answer";
  EXPECT_EQ(best({{"echo", true}, {"logprobs", 5}}), 5);
  EXPECT_EQ(best({{"echo", true}, {"logprobs", 5}, {"prompt_logprobs", 7}}), 7);
  EXPECT_EQ(best({{"prompt_logprobs", 20}}), 20);
  expect_error({{"max_tokens", 0}}, "max_tokens", "needs echo");
}

TEST_F(CompletionRequestTest, ContextOverflowIsToldBeforeAnythingIsQueued) {
  const json ids(std::vector<int>(50, 5));
  good({{"prompt", ids}, {"max_tokens", 14}});
  expect_error({{"prompt", ids}, {"max_tokens", 15}}, "prompt", "This model's maximum context length is 64 tokens");
  // 60 tokens of one letter, and the leading one.
  const std::string text = "z" + std::string(59, 'q');
  good({{"prompt", text}, {"max_tokens", 3}});
  expect_error({{"prompt", text}, {"max_tokens", 4}}, "prompt",
               "requested 65 tokens (61 in the prompt, 4 for the completion)");
  // 70 bytes, but few tokens.
  std::string words;
  for (int i = 0; i < 17; ++i) words += " the";
  EXPECT_THAT(good({{"prompt", words}}).jobs()[0].prompt_ids, SizeIs(18));
  // For a model that is not known here, the scheduler reports it.
  good({{"model", "plain"}, {"prompt", std::vector<int>(2'000, 5)}});
}

TEST_F(CompletionRequestTest, TruncationKeepsTheLastTokensAndTheLeadingOne) {
  const auto ids = [&](const json& changes) { return good(changes).jobs()[0].prompt_ids; };
  EXPECT_THAT(ids({{"prompt", {2, 5, 6, 7}}, {"truncate_prompt_tokens", 3}}), ElementsAre(2, 6, 7));
  EXPECT_THAT(ids({{"prompt", {4, 5, 6, 7}}, {"truncate_prompt_tokens", 3}}), ElementsAre(5, 6, 7));
  EXPECT_THAT(ids({{"prompt", {2, 5}}, {"truncate_prompt_tokens", 3}}), ElementsAre(2, 5));
  EXPECT_THAT(ids({{"prompt", {2, 5, 6}}, {"truncate_prompt_tokens", 1}}), ElementsAre(2));
  EXPECT_THAT(ids({{"prompt", std::string(100, 'q')}, {"truncate_prompt_tokens", -1}, {"max_tokens", 4}}), SizeIs(60));
  EXPECT_EQ(good({{"prompt", "xqz"}, {"truncate_prompt_tokens", 2}, {"echo", true}}).prompts[0].text, "z");
  expect_error({{"truncate_prompt_tokens", -1}, {"max_tokens", 64}}, "truncate_prompt_tokens");
  expect_error({{"truncate_prompt_tokens", 0}}, "truncate_prompt_tokens");
}

TEST_F(CompletionRequestTest, SpecialTokensCanBeLeftOut) {
  const std::vector<TokenId> with = good({{"return_token_ids", true}}).jobs()[0].prompt_ids;
  const std::vector<TokenId> without = good({{"add_special_tokens", false}}).jobs()[0].prompt_ids;
  ASSERT_EQ(with.size(), without.size() + 1);
  EXPECT_EQ(with.front(), 2);
  EXPECT_TRUE(std::equal(without.begin(), without.end(), with.begin() + 1));
  expect_error({{"add_special_tokens", false}, {"prompt", ""}}, "prompt", "empty");
}

TEST_F(CompletionRequestTest, ModelsAreFoundOrRefused) {
  expect_error({{"model", "other"}}, "model", "does not exist", 404);
  expect_error({{"model", nullptr}}, "model", "2 models");
  models_.set_served({"story"});
  EXPECT_EQ(good({{"model", nullptr}}).model.name, "story");
  EXPECT_EQ(good({}).model.fingerprint, "fp_aaaaaaaaaaaa");
}

TEST_F(CompletionRequestTest, WhatNeedsAVocabularyIsRefusedWithoutOne) {
  const auto refused = [&](json changes, const std::string& param) {
    changes["model"] = "plain";
    expect_error(changes, param, "--model plain=FOLDER");
  };
  refused({{"logprobs", 1}}, "logprobs");
  refused({{"prompt_logprobs", 0}}, "prompt_logprobs");
  refused({{"echo", true}, {"prompt", {2, 5}}}, "echo");
  refused({{"truncate_prompt_tokens", 5}}, "prompt");
  refused({{"return_token_ids", true}}, "prompt");
  good({{"model", "plain"}, {"echo", true}});
  good({{"model", "plain"}, {"prompt", {2, 5}}, {"truncate_prompt_tokens", 1}, {"return_token_ids", true}});
}

TEST_F(CompletionRequestTest, UnknownFieldsAndTyposAreRefusedByName) {
  expect_error({{"temprature", 0.5}}, "temprature", "did you mean 'temperature'?");
  expect_error({{"qqqqqqqq", 1}}, "qqqqqqqq", "Unknown field 'qqqqqqqq'");
  expect_error({{"a\x1b[2J", 1}}, "", "Unknown field");
  EXPECT_EQ(parse(body({{"temprature", 1}})).error().code, "unknown_parameter");
  expect_error({{"stream", true}, {"stream_options", {{"include_usages", true}}}}, "stream_options.include_usages",
               "did you mean 'stream_options.include_usage'?");
  for (const FieldInfo& field : completion_fields()) {
    if (field.use == FieldUse::kIgnored) good({{std::string(field.name), json{{"any", {1, 2}}}}});
    if (field.use == FieldUse::kRefused) {
      const Parsed<CompletionRequest> parsed = parse(body({{std::string(field.name), "something"}}));
      ASSERT_FALSE(parsed.ok()) << field.name;
      EXPECT_EQ(parsed.error().code, "unsupported_parameter");
      EXPECT_EQ(parsed.error().param, field.name);
    }
  }
  good({{"suffix", ""}});
}

TEST_F(CompletionRequestTest, StreamOptionsNeedAStream) {
  EXPECT_TRUE(good({{"stream", true}, {"stream_options", {{"include_usage", true}}}}).include_usage);
  EXPECT_FALSE(good({{"stream", true}, {"stream_options", {{"include_usage", nullptr}}}}).include_usage);
  expect_error({{"stream_options", {{"include_usage", true}}}}, "stream_options");
  expect_error({{"stream", true}, {"stream_options", {{"include_usage", 1}}}}, "stream_options.include_usage");
}

TEST_F(CompletionRequestTest, ListsHaveTheirLimits) {
  expect_error({{"stop", std::vector<std::string>(17, "x")}}, "stop");
  expect_error({{"stop", ""}}, "stop");
  expect_error({{"stop", std::string(65, 'x')}}, "stop");
  expect_error({{"stop_token_ids", std::vector<int>(17, 5)}}, "stop_token_ids");
  expect_error({{"stop_token_ids", {300}}}, "stop_token_ids");
  expect_error({{"logit_bias", {{"300", 1}}}}, "logit_bias");
  expect_error({{"logit_bias", {{"x", 1}}}}, "logit_bias", "expected a token id");
  expect_error({{"logit_bias", {{"5", 101}}}}, "logit_bias", "-100 to 100");
  expect_error({{"logit_bias", {{"5", "1"}}}}, "logit_bias['5']");
  expect_error({{"bad_words", std::vector<std::string>(65, "x")}}, "bad_words");
  expect_error({{"prompt", std::vector<std::string>(1'025, "x")}}, "prompt", "at most 1024");
  expect_error({{"prompt", std::vector<std::string>(17, "x")}, {"n", 64}}, "prompt", "at most 1024");
  expect_error({{"prompt", std::vector<std::string>(1'000, "x")}, {"logprobs", 20}, {"max_tokens", 60}}, "logprobs");
  // 1,000 prompts of 60 tokens and the leading one, each with its own log-probability and one other.
  const std::vector<std::string> texts(1'000, std::string(60, 'q'));
  good({{"prompt", texts}, {"logprobs", 1}, {"max_tokens", 1}, {"echo", true}});
  expect_error({{"prompt", texts}, {"logprobs", 20}, {"max_tokens", 1}, {"echo", true}}, "logprobs", "at most 1000000");
}

TEST_F(CompletionRequestTest, BodiesThatAreNoObjectsAreRefused) {
  for (const std::string& text :
       {std::string("{"), std::string("[]"), std::string("7"), std::string("\"x\""),
        std::string("{\"model\":\"story\",\"model\":\"story\"}"), std::string("{\"a\":\xff}"),
        std::string("{\"n\":NaN}"), std::string(20, '['), std::string("{\"n\":1e999}"), std::string("{} {}")}) {
    const Parsed<CompletionRequest> parsed = parse_completion(text, models_, context_);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().status, 400) << text;
  }
  EXPECT_EQ(parse_completion("", models_, context_).error().param, "prompt");
}

TEST_F(CompletionRequestTest, TenantsAndTimesComeFromKeyUserAndHeaders) {
  EXPECT_EQ(good({{"user", "ann"}}).jobs()[0].tenant, "ann");
  EXPECT_THAT(good({{"user", "ann@example.org"}}).jobs()[0].tenant, StartsWith("sha256-"));
  EXPECT_NE(good({{"user", "ann@example.org"}}).jobs()[0].tenant, good({{"user", "bob@example.org"}}).jobs()[0].tenant);
  context_.tenant = "of-the-key";
  EXPECT_EQ(good({{"user", "ann"}}).jobs()[0].tenant, "of-the-key") << "a user cannot take another tenant's share";
  context_.patience_ms = 30'000;
  EXPECT_EQ(good({}).jobs()[0].ttl_ms, 30'000);
  EXPECT_EQ(good({{"deadline_ms", 5}}).jobs()[0].ttl_ms, 5);
  const JobSpec background = good({{"background", true}}).jobs()[0];
  EXPECT_EQ(background.ttl_ms, 600'000) << "nobody waits for it";
  EXPECT_EQ(background.on_disconnect, protocol::OnDisconnect::kContinue);
  context_.patience_ms = INT64_MAX;
  EXPECT_EQ(good({}).jobs()[0].ttl_ms, limits::kJobTtlMsMax);
}

TEST_F(CompletionRequestTest, EveryJobIsValid) {
  for (const json& changes : {json{{"n", 64}}, json{{"prompt", {"a", "", "c"}}, {"best_of", 3}},
                              json{{"beam_width", 10}}, json{{"request_id", "any text \n"}, {"n", 2}}}) {
    for (JobSpec job : good(changes).jobs()) {
      if (job.key.empty()) job.key = "k";
      const Status status = protocol::validate(job);
      EXPECT_TRUE(status.ok()) << changes << status.refusal().message;
    }
  }
}

}  // namespace completion_request_test
}  // namespace optserve::http_api
