#include "gateway/batches/batch_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace optserve::gateway {
namespace batch_state_test {

using nlohmann::json;
using ::testing::HasSubstr;

json request() { return {{"input_file_id", "file-1"}, {"endpoint", "/v1/completions"}, {"completion_window", "24h"}}; }

TEST(BatchState, IsStoredAndReadAsItWas) {
  BatchState state = parse_batch(json(request()).dump()).value();
  state.id = "batch_1";
  state.tenant = "web";
  state.status = BatchStatus::kCancelling;
  state.metadata = {{"a", "\"1\""}, {"b", "\n"}};
  state.errors = {{7, "code", "message", "param"}, {0, "file", "all of it", ""}};
  state.model = "opt";
  state.created_at = 1;
  state.cancelled_at = 9;
  state.total = 5;
  state.output_tokens = 1'000'000'000'000;
  const auto again = parse_state(state_text(state));
  ASSERT_TRUE(again);
  EXPECT_EQ(state_text(*again), state_text(state));
  EXPECT_EQ(batch_body(*again), batch_body(state));
}

TEST(BatchState, WhatIsDamagedIsNone) {
  const std::string whole = state_text(parse_batch(json(request()).dump()).value());
  for (size_t size = 0; size + 2 < whole.size(); ++size) EXPECT_FALSE(parse_state(whole.substr(0, size))) << size;
  const json parsed = json::parse(whole);
  for (const auto& [name, value] : parsed.items()) {
    json wrong = parsed;
    wrong[name] = json::array({json::array()});
    EXPECT_FALSE(parse_state(wrong.dump())) << name;
    wrong.erase(name);
    EXPECT_FALSE(parse_state(wrong.dump())) << name;
  }
}

TEST(BatchState, ABodyHasEveryFieldThatClientsRead) {
  const json body = json::parse(batch_body(parse_batch(json(request()).dump()).value()));
  for (const char* name : {"id",
                           "object",
                           "endpoint",
                           "errors",
                           "input_file_id",
                           "completion_window",
                           "status",
                           "output_file_id",
                           "error_file_id",
                           "created_at",
                           "in_progress_at",
                           "expires_at",
                           "finalizing_at",
                           "completed_at",
                           "failed_at",
                           "expired_at",
                           "cancelling_at",
                           "cancelled_at",
                           "request_counts",
                           "metadata",
                           "usage",
                           "model"}) {
    EXPECT_TRUE(body.contains(name)) << name;
  }
  EXPECT_EQ(body.at("status"), "validating");
  EXPECT_EQ(body.at("failed_at"), nullptr);
}

TEST(BatchState, RequestsAreRefusedByField) {
  const auto message = [](const char* field, const json& value) {
    json body = request();
    body[field] = value;
    const auto parsed = parse_batch(body.dump());
    return parsed.ok() ? "" : parsed.error().message;
  };
  EXPECT_EQ(message("metadata", {{"a", "b"}}), "");
  EXPECT_EQ(message("metadata", nullptr), "");
  EXPECT_EQ(message("completion_window", "1h"), "");
  EXPECT_EQ(message("output_expires_after", {{"anchor", "created_at"}, {"seconds", 3'600}}), "");
  EXPECT_THAT(message("input_file_id", nullptr), HasSubstr("input_file_id"));
  EXPECT_THAT(message("endpoint", "/v1/embeddings"), HasSubstr("/v1/completions"));
  for (const char* window : {"", "h", "0h", "169h", "24", "24 h", "-1h", "1d"}) {
    EXPECT_THAT(message("completion_window", window), HasSubstr("completion_window")) << window;
  }
  EXPECT_THAT(message("metadata", "text"), HasSubstr("metadata"));
  EXPECT_THAT(message("metadata", {{"a", 1}}), HasSubstr("metadata.'a'"));
  EXPECT_THAT(message("metadata", {{"a", std::string(600, 'x')}}), HasSubstr("512"));
  EXPECT_THAT(message("output_expires_after", {{"anchor", "created_at"}, {"seconds", 5}}), HasSubstr("output_expires"));
  EXPECT_THAT(message("output_expires_after", 7), HasSubstr("output_expires_after"));
  EXPECT_THAT(message("unknown", 7), HasSubstr("unknown"));
}

}  // namespace batch_state_test
}  // namespace optserve::gateway
