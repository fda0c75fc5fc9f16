#include "protocol/validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "base/limits.h"

namespace optserve::protocol {
namespace validate_test {

using ::testing::HasSubstr;

JobSpec good_job() {
  JobSpec spec;
  spec.key = "key-1";
  spec.model = "opt-125m";
  spec.prompt = "Once upon a time";
  return spec;
}

JobSpec good_conversion() {
  JobSpec spec;
  spec.key = "key-1";
  spec.kind = JobKind::kConvert;
  spec.convert = ConvertSpec{"/in", "/out", "fp16", 2};
  return spec;
}

struct Case {
  const char* field;  // the refusal's message begins with it
  std::function<void(JobSpec&)> change;
  bool good;
  ErrorCode code = ErrorCode::kBadRequest;
};

void expect_cases(const JobSpec& base, const std::vector<Case>& cases) {
  ASSERT_TRUE(validate(base).ok());
  for (size_t i = 0; i < cases.size(); ++i) {
    JobSpec spec = base;
    cases[i].change(spec);
    const Status status = validate(spec);
    ASSERT_EQ(status.ok(), cases[i].good)
        << cases[i].field << ", case " << i << (status.ok() ? "" : ": " + status.refusal().message);
    if (status.ok()) continue;
    EXPECT_THAT(status.refusal().message, ::testing::StartsWith(cases[i].field)) << "case " << i;
    EXPECT_EQ(status.refusal().code, cases[i].code) << cases[i].field << ", case " << i;
  }
}

// min - 1, min, max and max + 1 of an integer field.
template <class T>
void expect_range(const JobSpec& base, const char* field, const std::function<void(JobSpec&, T)>& set, T min, T max) {
  expect_cases(base, {{field, [&](JobSpec& s) { set(s, min - 1); }, false},
                      {field, [&](JobSpec& s) { set(s, min); }, true},
                      {field, [&](JobSpec& s) { set(s, max); }, true},
                      {field, [&](JobSpec& s) { set(s, max + 1); }, false}});
}

TEST(Validate, Integers) {
  const JobSpec job = good_job();
  expect_range<int32_t>(
      job, "priority", [](JobSpec& s, int32_t v) { s.priority = v; }, 0, 9);
  expect_range<int32_t>(
      job, "max_attempts", [](JobSpec& s, int32_t v) { s.max_attempts = v; }, 1, 10);
  expect_range<int64_t>(
      job, "ttl_ms", [](JobSpec& s, int64_t v) { s.ttl_ms = v; }, 1, 3'600'000);
  expect_range<int64_t>(
      job, "result_ttl_ms", [](JobSpec& s, int64_t v) { s.result_ttl_ms = v; }, 0, 604'800'000);
  expect_range<int32_t>(
      job, "max_new_tokens", [](JobSpec& s, int32_t v) { s.max_new_tokens = v; }, 1, 2048);
  expect_range<int32_t>(
      job, "top_k", [](JobSpec& s, int32_t v) { s.sampling.top_k = v; }, 0, 1 << 18);
  expect_range<int32_t>(
      job, "min_new_tokens", [](JobSpec& s, int32_t v) { s.sampling.min_new_tokens = v; }, 0, 2048);
  expect_range<int32_t>(
      good_conversion(), "convert: shards", [](JobSpec& s, int32_t v) { s.convert->shards = v; }, 0, 64);
}

TEST(Validate, Numbers) {
  struct Field {
    const char* name;
    float sampling::SamplingParams::*field;
    float min, max;
    bool min_allowed;
  };
  const Field fields[] = {{"temperature", &sampling::SamplingParams::temperature, 0, 2, true},
                          {"top_p", &sampling::SamplingParams::top_p, 0, 1, false},
                          {"repetition_penalty", &sampling::SamplingParams::repetition_penalty, 0, 10, false},
                          {"presence_penalty", &sampling::SamplingParams::presence_penalty, -2, 2, true},
                          {"frequency_penalty", &sampling::SamplingParams::frequency_penalty, -2, 2, true}};
  for (const Field& f : fields) {
    const auto set = [&f](float value) { return [&f, value](JobSpec& s) { s.sampling.*f.field = value; }; };
    expect_cases(good_job(), {{f.name, set(std::nextafter(f.min, -100.f)), false},
                              {f.name, set(f.min), f.min_allowed},
                              {f.name, set(std::nextafter(f.min, 100.f)), true},
                              {f.name, set(f.max), true},
                              {f.name, set(std::nextafter(f.max, 100.f)), false},
                              {f.name, set(std::nanf("")), false},
                              {f.name, set(HUGE_VALF), false},
                              {f.name, set(-HUGE_VALF), false}});
  }
}

TEST(Validate, Names) {
  struct Field {
    const char* name;
    std::string JobSpec::*field;
    size_t min, max;
  };
  for (const Field& f : {Field{"key", &JobSpec::key, 1, 128}, Field{"tenant", &JobSpec::tenant, 0, 64},
                         Field{"model", &JobSpec::model, 1, 64}}) {
    const auto set = [&f](const std::string& value) { return [&f, value](JobSpec& s) { s.*f.field = value; }; };
    expect_cases(good_job(), {{f.name, set(""), f.min == 0},
                              {f.name, set("a"), true},
                              {f.name, set(std::string(f.max, 'x')), true},
                              {f.name, set(std::string(f.max + 1, 'x')), false},
                              {f.name, set("Az09._-"), true},
                              {f.name, set("a b"), false},
                              {f.name, set("a/b"), false},
                              {f.name, set("\u00e9"), false},
                              {f.name, set(std::string("a\0b", 3)), false}});
  }
}

TEST(Validate, Prompt) {
  const auto ids = [](size_t count, TokenId id = 5) {
    return [count, id](JobSpec& s) {
      s.prompt.clear();
      s.prompt_ids.assign(count, id);
    };
  };
  const auto text = [](size_t size) { return [size](JobSpec& s) { s.prompt.assign(size, 'x'); }; };
  expect_cases(good_job(), {{"prompt", text(0), false},
                            {"prompt", text(1), true},
                            {"prompt", text(65'536), true},
                            {"prompt", text(65'537), false, ErrorCode::kPromptTooLong},
                            {"prompt_ids", ids(1), true},
                            {"prompt_ids", ids(2'048), true},
                            {"prompt_ids", ids(2'049), false, ErrorCode::kPromptTooLong},
                            {"prompt_ids", ids(1, -1), false},
                            {"prompt_ids", ids(1, 0), true},
                            {"prompt", [](JobSpec& s) { s.prompt_ids = {1}; }, false}});
}

TEST(Validate, FieldsThatMeanNothing) {
  JobSpec spec = good_job();
  spec.unknown_fields = {"temprature", "topk"};
  const Status refused = validate(spec);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.refusal().code, ErrorCode::kBadRequest);
  EXPECT_NE(refused.refusal().message.find("'temprature', 'topk'"), std::string::npos) << refused.refusal().message;
  spec = good_conversion();
  spec.convert->unknown_fields = {"shard"};
  EXPECT_NE(validate(spec).refusal().message.find("'shard'"), std::string::npos);
}

TEST(Validate, Stop) {
  const auto stops = [](size_t count, size_t size) {
    return [count, size](JobSpec& s) { s.stop.assign(count, std::string(size, '.')); };
  };
  expect_cases(good_job(), {{"stop", stops(0, 0), true},
                            {"stop", stops(16, 64), true},
                            {"stop", stops(17, 1), false},
                            {"stop", stops(1, 0), false},
                            {"stop", stops(1, 65), false}});
}

TEST(Validate, BadWords) {
  const auto words = [](size_t count, size_t size) {
    return [count, size](JobSpec& s) { s.bad_words.assign(count, std::string(size, '.')); };
  };
  expect_cases(good_job(), {{"bad_words", words(64, 64), true},
                            {"bad_words", words(65, 1), false},
                            {"bad_words", words(1, 0), false},
                            {"bad_words", words(1, 65), false}});
}

TEST(Validate, Conversion) {
  const auto paths = [](const std::string& source, const std::string& destination) {
    return [=](JobSpec& s) {
      s.convert->source = source;
      s.convert->destination = destination;
    };
  };
  const auto dtype = [](const char* value) { return [value](JobSpec& s) { s.convert->dtype = value; }; };
  const std::string longest(4'096, 'x');
  for (const char* name : {"", "none", "int8", "int8-mse", "fp8", "int4"}) {
    expect_cases(good_conversion(), {{"convert", [=](JobSpec& s) { s.convert->quantize = name; }, true}});
  }
  expect_cases(good_conversion(), {{"convert: quantize", [](JobSpec& s) { s.convert->quantize = "int5"; }, false},
                                   {"convert", [](JobSpec& s) { s.convert.reset(); }, false},
                                   {"convert", paths("", "/out"), false},
                                   {"convert", paths("/in", ""), false},
                                   {"convert", paths(longest, longest), true},
                                   {"convert", paths(longest + "x", "/out"), false},
                                   {"convert", paths("/in", longest + "x"), false},
                                   {"convert", paths(std::string("a\0b", 3), "/out"), false},
                                   {"convert", dtype("keep"), true},
                                   {"convert", dtype("fp32"), true},
                                   {"convert", dtype("bf16"), true},
                                   {"convert: dtype", dtype(""), false},
                                   {"convert: dtype", dtype("int3"), false}});
  expect_cases(good_job(), {{"convert", [](JobSpec& s) { s.convert = ConvertSpec{}; }, false}});
}

TEST(Validate, MessagesNameWhatWasExpectedAndFound) {
  JobSpec spec = good_job();
  spec.priority = 12;
  EXPECT_EQ(validate(spec).refusal().message, "priority is 12, expected 0 to 9");
  spec = good_conversion();
  spec.convert->dtype = "int3";
  EXPECT_THAT(validate(spec).refusal().message, HasSubstr("is 'int3', expected keep, fp32, fp16 or bf16"));
}

TEST(Validate, ATraceIsInItsOneForm) {
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  expect_cases(good_job(), {{"traceparent", [&](JobSpec& s) { s.traceparent = trace; }, true},
                            {"traceparent", [&](JobSpec& s) { s.traceparent = trace + "\n"; }, false},
                            {"traceparent", [&](JobSpec& s) { s.traceparent = "cc" + trace.substr(2); }, false}});
}

}  // namespace validate_test
}  // namespace optserve::protocol
