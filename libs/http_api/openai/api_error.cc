#include "http_api/openai/api_error.h"

#include <algorithm>

#include "base/limits.h"
#include "http_api/openai/json_text.h"

namespace optserve::http_api {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kRetryAfterMsMin = 1'000, kRetryAfterMsMax = 60'000;
constexpr int64_t kRetryAfterMsUnknown = 5'000;

bool asks_to_retry(int status) { return status == 429 || status == 503; }

std::string usual_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

ordered_json text_or_null(const std::string& text) { return text.empty() ? ordered_json() : ordered_json(text); }

// The HTTP status of each class of refusal. 409 is never used, since clients retry it.
struct Mapping {
  int status;
  const char* code;
  std::optional<bool> should_retry;
};
Mapping mapping_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kBadRequest:
      return {400, "invalid_value", {}};
    case ErrorCode::kUnsupportedFormat:
      return {400, "unsupported_format", {}};
    case ErrorCode::kUnknownModel:
      return {404, "model_not_found", {}};
    case ErrorCode::kPromptTooLong:
      return {400, "context_length_exceeded", {}};
    case ErrorCode::kIdempotencyConflict:
      return {422, "idempotency_key_mismatch", {}};
    case ErrorCode::kNotFound:
      return {404, "not_found", {}};
    case ErrorCode::kBusy:
      return {429, "server_overloaded", {}};
    case ErrorCode::kUnavailable:
      return {503, "service_unavailable", {}};
    case ErrorCode::kStorageFull:
      return {503, "storage_full", {}};
    case ErrorCode::kDeadlineExceeded:
      return {504, "deadline_exceeded", false};
    case ErrorCode::kCancelled:
      return {410, "cancelled", {}};
    case ErrorCode::kAttemptsExhausted:
      return {500, "generation_failed", false};
    case ErrorCode::kUnsupportedVersion:
    case ErrorCode::kDataCorrupt:
    case ErrorCode::kInternal:
      break;
  }
  return {500, "internal_error", {}};
}

}  // namespace

std::string error_body(const ApiError& error) {
  ordered_json inner{{"message", error.message},
                     {"type", error.type.empty() ? usual_type(error.status) : error.type},
                     {"param", text_or_null(error.param)},
                     {"code", text_or_null(error.code)}};
  if (!error.job.empty()) inner["job"] = error.job;
  return json_text({{"error", std::move(inner)}});
}

HttpHeaders error_headers(const ApiError& error) {
  HttpHeaders headers;
  if (asks_to_retry(error.status)) {
    const int64_t known = error.retry_after_ms > 0 ? error.retry_after_ms : kRetryAfterMsUnknown;
    const int64_t ms = std::clamp(known, kRetryAfterMsMin, kRetryAfterMsMax);
    headers.emplace_back("Retry-After", std::to_string((ms + 999) / 1'000));
    headers.emplace_back("retry-after-ms", std::to_string(ms));
  }
  if (error.should_retry) headers.emplace_back("x-should-retry", *error.should_retry ? "true" : "false");
  return headers;
}

ApiError error_of(const Refusal& refusal, int64_t retry_after_ms, int32_t context) {
  const Mapping mapping = mapping_of(refusal.code);
  ApiError error{.status = mapping.status, .message = refusal.message, .code = mapping.code};
  error.retry_after_ms = retry_after_ms;
  error.should_retry = mapping.should_retry;
  if (refusal.code == ErrorCode::kUnknownModel) error.param = "model";
  if (refusal.code == ErrorCode::kPromptTooLong) {
    // Clients recognise that the context is too small by these first words.
    const auto tokens = static_cast<int64_t>(context > 0 ? context : static_cast<int32_t>(limits::kContextTokensMax));
    error.message = "This model's maximum context length is " + std::to_string(tokens) + " tokens. " + refusal.message;
    error.param = "prompt";
  }
  return error;
}

ApiError error_of(const protocol::SubmitOutcome& outcome, int32_t context) {
  check(outcome.error.has_value(), "an outcome with an error");
  ApiError error = error_of(refuse(*outcome.error, outcome.message), outcome.retry_after_ms, context);
  // The queue is currently too long for the job's deadline: that is overload, and the job has not waited at all.
  if (*outcome.error == ErrorCode::kDeadlineExceeded && outcome.retry_after_ms > 0) {
    error.status = 429;
    error.should_retry.reset();
  }
  return error;
}

std::optional<ApiError> first_error(std::span<const protocol::SubmitOutcome> outcomes, int32_t context) {
  const auto failed = std::ranges::find_if(outcomes, [](const auto& outcome) { return outcome.error.has_value(); });
  if (failed == outcomes.end()) return std::nullopt;
  return error_of(*failed, context);
}

std::optional<ApiError> error_of(const protocol::JobResult& result, int32_t context) {
  check(protocol::is_terminal(result.state), "a result of a job that has ended");
  if (result.state == protocol::JobState::kSucceeded) return std::nullopt;
  const ErrorCode usual = result.state == protocol::JobState::kCancelled ? ErrorCode::kCancelled
                          : result.state == protocol::JobState::kExpired ? ErrorCode::kDeadlineExceeded
                          : result.state == protocol::JobState::kDead    ? ErrorCode::kAttemptsExhausted
                                                                         : ErrorCode::kInternal;
  const ErrorCode code = result.error.value_or(usual);
  std::string message = result.message;
  if (message.empty()) message = "the job has ended as " + std::string(protocol::job_state_name(result.state));
  ApiError error = error_of(refuse(code, std::move(message)), 0, context);
  error.job = result.job.hex();
  // The queue has used all attempts, so the same request would fail again.
  if (error.status >= 500 && !asks_to_retry(error.status)) error.should_retry = false;
  return error;
}

ApiError invalid_value(std::string_view param, std::string message) {
  return {.status = 400, .message = std::move(message), .param = std::string(param), .code = "invalid_value"};
}

ApiError unsupported(std::string_view param, std::string message) {
  return {.status = 400, .message = std::move(message), .param = std::string(param), .code = "unsupported_parameter"};
}

ApiError context_overflow(int32_t context, size_t prompt_tokens, int64_t max_tokens) {
  return {.status = 400,
          .message = "This model's maximum context length is " + std::to_string(context) +
                     " tokens. However, you requested " +
                     std::to_string(static_cast<int64_t>(prompt_tokens) + max_tokens) + " tokens (" +
                     std::to_string(prompt_tokens) + " in the prompt, " + std::to_string(max_tokens) +
                     " for the completion). Please reduce the prompt or max_tokens.",
          .param = "prompt",
          .code = "context_length_exceeded"};
}

ApiError invalid_api_key() {
  return {.status = 401, .message = "Incorrect API key provided, or none.", .code = "invalid_api_key"};
}

ApiError forbidden(std::string message) {
  return {.status = 403, .message = std::move(message), .code = "insufficient_permissions"};
}

ApiError unknown_model(std::string_view model) {
  return {.status = 404,
          .message = "The model `" + std::string(model.substr(0, limits::kModelNameBytesMax)) + "` does not exist.",
          .param = "model",
          .code = "model_not_found"};
}

ApiError unknown_route(std::string_view method, std::string_view path) {
  return {.status = 404,
          .message = "Unknown request URL: " + std::string(method) + " " + std::string(path.substr(0, 200)),
          .code = "unknown_url"};
}

ApiError method_not_allowed(std::string_view method, std::string_view allowed) {
  return {.status = 405,
          .message = "Not allowed here: " + std::string(method) + "; allowed: " + std::string(allowed),
          .code = "method_not_allowed"};
}

ApiError request_too_large(std::string_view what, size_t bytes_max) {
  return {.status = 413,
          .message = "The " + std::string(what) + " is too large: at most " + std::to_string(bytes_max) +
                     " bytes are allowed.",
          .code = "request_too_large"};
}

ApiError unsupported_media_type(std::string_view expected) {
  return {.status = 415,
          .message = "The body's Content-Type is not supported; expected " + std::string(expected),
          .code = "unsupported_media_type"};
}

ApiError rate_limited(std::string message, int64_t retry_after_ms) {
  return {
      .status = 429, .message = std::move(message), .code = "rate_limit_exceeded", .retry_after_ms = retry_after_ms};
}

ApiError unavailable(std::string message, int64_t retry_after_ms) {
  return {
      .status = 503, .message = std::move(message), .code = "service_unavailable", .retry_after_ms = retry_after_ms};
}

ApiError internal_error(std::string message) {
  return {.status = 500, .message = std::move(message), .code = "internal_error"};
}

}  // namespace optserve::http_api
