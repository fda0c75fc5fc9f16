#include "base/error.h"

#include <cerrno>
#include <system_error>

namespace optserve {

std::string_view error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kBadRequest:
      return "bad_request";
    case ErrorCode::kUnsupportedVersion:
      return "unsupported_version";
    case ErrorCode::kUnknownModel:
      return "unknown_model";
    case ErrorCode::kPromptTooLong:
      return "prompt_too_long";
    case ErrorCode::kIdempotencyConflict:
      return "idempotency_conflict";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kBusy:
      return "busy";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kDataCorrupt:
      return "data_corrupt";
    case ErrorCode::kUnsupportedFormat:
      return "unsupported_format";
    case ErrorCode::kDeadlineExceeded:
      return "deadline_exceeded";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kAttemptsExhausted:
      return "attempts_exhausted";
    case ErrorCode::kInternal:
      return "internal";
    case ErrorCode::kStorageFull:
      return "storage_full";
  }
  return "unknown";
}

Error errno_error(std::string_view what) {
  const int saved = errno;
  return Error(std::string(what) + ": " + std::system_category().message(saved));
}

}  // namespace optserve
