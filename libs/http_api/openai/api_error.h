// Errors as HTTP clients of OpenAI's API read them, and how each failure of the protocol becomes one.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "protocol/client_messages.h"

namespace optserve::http_api {

struct ApiError {
  int status = 500;                    // of the HTTP answer
  std::string message;                 // a sentence for people; official clients show nothing else
  std::string type{};                  // OpenAI's class of errors; empty: the usual one of the status
  std::string param{};                 // the field concerned; empty if none (null in JSON)
  std::string code{};                  // for programs, such as "context_length_exceeded"; empty if none
  int64_t retry_after_ms = 0;          // with 429 and 503: when to ask again; 0: not known
  std::optional<bool> should_retry{};  // overrides what clients conclude from the status (`x-should-retry`)
  std::string job{};                   // id of the job that failed, whose result can be fetched later; may be empty
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

// {"error":{"message":…,"type":…,"param":…,"code":…}}
std::string error_body(const ApiError& error);
// `Retry-After` (1 to 60 s, since clients ignore or refuse more), `retry-after-ms` and `x-should-retry`, if they apply.
// An answer of 429 or 503 always has a Retry-After.
HttpHeaders error_headers(const ApiError& error);

// The error for a refusal by a scheduler or by this process. `context` is that of the model, for "maximum context
// length"; 0 if it is not known.
ApiError error_of(const Refusal& refusal, int64_t retry_after_ms = 0, int32_t context = 0);
// Why a job was not accepted. Needs an outcome with an error.
ApiError error_of(const protocol::SubmitOutcome& outcome, int32_t context = 0);
// The error of the first job that was not accepted; nullopt if all were.
std::optional<ApiError> first_error(std::span<const protocol::SubmitOutcome> outcomes, int32_t context = 0);
// Why a job that has ended gave no result; nullopt if it succeeded. Needs a terminal state.
std::optional<ApiError> error_of(const protocol::JobResult& result, int32_t context = 0);

// Mistakes in requests, and what the server itself refuses.
ApiError invalid_value(std::string_view param, std::string message);  // 400
ApiError unsupported(std::string_view param, std::string message);    // 400, code "unsupported_parameter"
ApiError context_overflow(int32_t context, size_t prompt_tokens, int64_t max_tokens);  // 400
ApiError invalid_api_key();                                                            // 401
ApiError forbidden(std::string message);                                               // 403
ApiError unknown_model(std::string_view model);                                        // 404
ApiError unknown_route(std::string_view method, std::string_view path);                // 404
ApiError method_not_allowed(std::string_view method, std::string_view allowed);        // 405; also needs `Allow`
ApiError request_too_large(std::string_view what, size_t bytes_max);                   // 413
ApiError unsupported_media_type(std::string_view expected);                            // 415
ApiError rate_limited(std::string message, int64_t retry_after_ms);                    // 429
ApiError unavailable(std::string message, int64_t retry_after_ms = 0);                 // 503
ApiError internal_error(std::string message);                                          // 500

// A value, or the error that explains why there is none. Callers test ok() before value(); reading the wrong side
// aborts.
template <class T>
class [[nodiscard]] Parsed {
 public:
  Parsed(T value) : state_(std::in_place_index<0>, std::move(value)) {}         // NOLINT: implicit on purpose
  Parsed(ApiError error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit on purpose

  bool ok() const { return state_.index() == 0; }
  T& value() & {
    check(ok(), "this holds an error, not a value");
    return std::get<0>(state_);
  }
  const T& value() const& {
    check(ok(), "this holds an error, not a value");
    return std::get<0>(state_);
  }
  T value() && {
    check(ok(), "this holds an error, not a value");
    return std::get<0>(std::move(state_));
  }
  const ApiError& error() const {
    check(!ok(), "this holds a value, not an error");
    return std::get<1>(state_);
  }

 private:
  std::variant<T, ApiError> state_;
};

}  // namespace optserve::http_api
