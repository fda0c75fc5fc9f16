// What is known of a batch: the object of OpenAI's API, and what a gateway needs to go on with it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "http_api/openai/api_error.h"

namespace optserve::gateway {

enum class BatchStatus : uint8_t {
  kValidating,
  kFailed,  // the input has mistakes: nothing was run
  kInProgress,
  kFinalizing,
  kCompleted,
  kExpired,
  kCancelling,
  kCancelled,
};
std::string_view batch_status_name(BatchStatus status);
bool is_ended(BatchStatus status);

struct BatchState {
  std::string id;  // "batch_" and 32 hexadecimal digits
  std::string tenant, endpoint, input_file_id, completion_window;
  BatchStatus status = BatchStatus::kValidating;
  std::vector<std::pair<std::string, std::string>> metadata{};
  int64_t output_expires_seconds = 0;  // of the files it writes, after they are made; 0: never
  std::string model{};                 // of the first line
  // Seconds since 1970; 0: not yet.
  int64_t created_at = 0, in_progress_at = 0, expires_at = 0, finalizing_at = 0, completed_at = 0, failed_at = 0,
          expired_at = 0, cancelling_at = 0, cancelled_at = 0;
  std::string output_file_id{}, error_file_id{};  // empty: there is no such file
  uint64_t total = 0, completed = 0, failed = 0;  // lines
  int64_t input_tokens = 0, output_tokens = 0;
  struct LineError {
    uint64_t line = 0;  // 0: of the whole file
    std::string code, message, param;
  };
  std::vector<LineError> errors{};  // why it has failed
};

// When it ended; 0: it has not.
int64_t ended_at(const BatchState& state);

// The text that is stored, and back; nullopt if it is damaged.
std::string state_text(const BatchState& state);
std::optional<BatchState> parse_state(std::string_view text);
// The object of the API.
std::string batch_body(const BatchState& state);

// The body of POST /v1/batches. The caller fills in the identity and the times.
http_api::Parsed<BatchState> parse_batch(std::string_view body);
// "24h" in seconds; nullopt unless it is 1h to 168h.
std::optional<int64_t> window_seconds(std::string_view text);

}  // namespace optserve::gateway
