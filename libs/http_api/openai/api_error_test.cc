#include "http_api/openai/api_error.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace optserve::http_api {
namespace api_error_test {

using nlohmann::json;
using protocol::JobResult;
using protocol::JobState;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;
using ::testing::StartsWith;

struct Expected {
  ErrorCode code;
  int status;
  const char* word;
};

// Every code of the protocol.
const std::vector<Expected> kAll = {{ErrorCode::kBadRequest, 400, "invalid_value"},
                                    {ErrorCode::kUnsupportedVersion, 500, "internal_error"},
                                    {ErrorCode::kUnknownModel, 404, "model_not_found"},
                                    {ErrorCode::kPromptTooLong, 400, "context_length_exceeded"},
                                    {ErrorCode::kIdempotencyConflict, 422, "idempotency_key_mismatch"},
                                    {ErrorCode::kNotFound, 404, "not_found"},
                                    {ErrorCode::kBusy, 429, "server_overloaded"},
                                    {ErrorCode::kUnavailable, 503, "service_unavailable"},
                                    {ErrorCode::kDataCorrupt, 500, "internal_error"},
                                    {ErrorCode::kUnsupportedFormat, 400, "unsupported_format"},
                                    {ErrorCode::kDeadlineExceeded, 504, "deadline_exceeded"},
                                    {ErrorCode::kCancelled, 410, "cancelled"},
                                    {ErrorCode::kAttemptsExhausted, 500, "generation_failed"},
                                    {ErrorCode::kInternal, 500, "internal_error"},
                                    {ErrorCode::kStorageFull, 503, "storage_full"}};

TEST(ApiErrorMapping, EveryRefusalHasStatusAndCode) {
  ASSERT_EQ(kAll.size(), wire_range(ErrorCode{}).last);
  for (const Expected& expected : kAll) {
    const ApiError error = error_of(refuse(expected.code, "why"));
    EXPECT_EQ(error.status, expected.status) << expected.word;
    EXPECT_EQ(error.code, expected.word);
    EXPECT_THAT(error.message, HasSubstr("why"));
    EXPECT_NE(error.status, 409) << "clients repeat it";
  }
}

TEST(ApiErrorMapping, ARetryAfterStandsOnEvery429And503AndIsOneToSixtySeconds) {
  for (const Expected& expected : kAll) {
    for (const int64_t given : {0, 1, 1'500, 59'001, 10'000'000}) {
      const HttpHeaders headers = error_headers(error_of(refuse(expected.code, "why"), given));
      if (expected.status != 429 && expected.status != 503) {
        EXPECT_THAT(headers, Not(Contains(Key("Retry-After")))) << expected.word;
        continue;
      }
      const std::string seconds = given == 0 ? "5" : given == 1 ? "1" : given == 1'500 ? "2" : "60";
      EXPECT_THAT(headers, Contains(Pair("Retry-After", seconds))) << expected.word << " " << given;
    }
  }
  EXPECT_THAT(error_headers(error_of(refuse(ErrorCode::kBusy, ""), 1'500)), Contains(Pair("retry-after-ms", "1500")));
}

TEST(ApiErrorMapping, ClientsDoNotRetryWhatWouldFailAgain) {
  for (const ErrorCode code : {ErrorCode::kDeadlineExceeded, ErrorCode::kAttemptsExhausted}) {
    EXPECT_THAT(error_headers(error_of(refuse(code, "why"))), Contains(Pair("x-should-retry", "false")));
  }
  EXPECT_THAT(error_headers(error_of(refuse(ErrorCode::kUnavailable, "why"))), Not(Contains(Key("x-should-retry"))));
}

TEST(ApiErrorMapping, AQueueThatIsTooLongForARequestsTimeIsOverload) {
  protocol::SubmitOutcome outcome;
  outcome.error = ErrorCode::kDeadlineExceeded;
  EXPECT_EQ(error_of(outcome).status, 504);
  outcome.retry_after_ms = 7'500;
  const ApiError error = error_of(outcome);
  EXPECT_EQ(error.status, 429);
  EXPECT_THAT(error_headers(error), Contains(Pair("Retry-After", "8")));
  EXPECT_THAT(error_headers(error), Not(Contains(Key("x-should-retry"))));
}

TEST(ApiErrorMapping, AnOverflowBeginsWithTheWordsThatClientsLookFor) {
  EXPECT_THAT(error_of(refuse(ErrorCode::kPromptTooLong, "prompt of 99 tokens"), 0, 64).message,
              StartsWith("This model's maximum context length is 64 tokens. prompt of 99 tokens"));
  EXPECT_THAT(error_of(refuse(ErrorCode::kPromptTooLong, "")).message, HasSubstr("is 2048 tokens"));
  const ApiError counted = context_overflow(64, 60, 16);
  EXPECT_EQ(counted.code, "context_length_exceeded");
  EXPECT_THAT(counted.message, HasSubstr("requested 76 tokens (60 in the prompt, 16 for the completion)"));
}

TEST(ApiErrorMapping, ResultsOfJobsThatDidNotSucceedAreErrorsWithTheirJob) {
  struct Case {
    JobState state;
    std::optional<ErrorCode> error;
    int status;
  };
  const std::vector<Case> cases = {{JobState::kFailed, ErrorCode::kPromptTooLong, 400},
                                   {JobState::kFailed, ErrorCode::kInternal, 500},
                                   {JobState::kFailed, std::nullopt, 500},
                                   {JobState::kCancelled, std::nullopt, 410},
                                   {JobState::kExpired, std::nullopt, 504},
                                   {JobState::kDead, std::nullopt, 500}};
  for (const Case& c : cases) {
    JobResult result;
    result.job = JobId{{7}};
    result.state = c.state;
    result.error = c.error;
    const std::optional<ApiError> error = error_of(result);
    ASSERT_TRUE(error);
    EXPECT_EQ(error->status, c.status);
    EXPECT_EQ(error->job, result.job.hex());
    EXPECT_THAT(error->message, Not(IsEmpty()));
    if (c.status >= 500) {
      EXPECT_EQ(error->should_retry, false);
    }
  }
  JobResult good;
  good.state = JobState::kSucceeded;
  EXPECT_FALSE(error_of(good));
}

TEST(ApiErrorMapping, TheFirstJobThatIsNotAcceptedCounts) {
  std::vector<protocol::SubmitOutcome> outcomes(3);
  EXPECT_FALSE(first_error(outcomes));
  outcomes[1].error = ErrorCode::kBusy;
  outcomes[1].retry_after_ms = 3'000;
  outcomes[2].error = ErrorCode::kBadRequest;
  const auto error = first_error(outcomes);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->status, 429);
  EXPECT_EQ(error->retry_after_ms, 3'000);
}

TEST(ApiErrorBody, IsOpenAis) {
  EXPECT_EQ(json::parse(error_body(invalid_value("n", "n is 0"))),
            json::parse(R"({"error": {"message": "n is 0", "type": "invalid_request_error", "param": "n",
                                      "code": "invalid_value"}})"));
  EXPECT_EQ(json::parse(error_body({.status = 500, .message = "x"})),
            json::parse(R"({"error": {"message": "x", "type": "server_error", "param": null, "code": null}})"));
  EXPECT_EQ(json::parse(error_body(invalid_api_key()))["error"]["type"], "authentication_error");
  EXPECT_EQ(json::parse(error_body(rate_limited("slow down", 1)))["error"]["type"], "rate_limit_error");
  EXPECT_EQ(json::parse(error_body(internal_error("bytes \xff"))).size(), 1u)
      << "bytes that are not UTF-8 are replaced";
}

}  // namespace api_error_test
}  // namespace optserve::http_api
