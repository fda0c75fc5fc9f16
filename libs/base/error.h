// The three kinds of failure. A bug in the program aborts it (check.h). A request that cannot be served is a Refusal in
// a Result<T>, a value that the caller handles. A failure of the environment (I/O, GPU, a dead peer) is thrown as an
// Error, and ends the process in main or, where only one job or one thread depends on it, becomes a refusal or the end
// of that thread. There is no fourth kind.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"

namespace optserve {

// What a client sees as the class of a refusal. The numbers are on the wire: never renumber, only append.
enum class ErrorCode : uint8_t {
  kBadRequest = 1,           // malformed or out of range; permanent
  kUnsupportedVersion = 2,   // protocol version or mandatory field this build does not know
  kUnknownModel = 3,         // no such model is served
  kPromptTooLong = 4,        // prompt plus the wanted tokens exceed the model's context
  kIdempotencyConflict = 5,  // same key, another payload
  kNotFound = 6,             // no such job
  kBusy = 7,                 // a bound is reached; retry later
  kUnavailable = 8,          // the service cannot do this now (draining, nothing connected)
  kDataCorrupt = 9,          // a file or message does not hold what its header promises
  kUnsupportedFormat = 10,   // a file of a kind or version that this build refuses
  kDeadlineExceeded = 11,    // the job's time ran out
  kCancelled = 12,           // cancelled by the client
  kAttemptsExhausted = 13,   // every allowed attempt lost its worker
  kInternal = 14,            // our fault
  kStorageFull = 15,         // the disk of the journal is full: nothing new is accepted until there is room
};

// The wire name of a code, for logs and the command line ("bad_request").
std::string_view error_code_name(ErrorCode code);

// Why something was refused: a class for programs, and a sentence for people that names what was expected and found.
struct Refusal {
  ErrorCode code = ErrorCode::kBadRequest;
  std::string message;
};

inline Refusal refuse(ErrorCode code, std::string message) { return Refusal{code, std::move(message)}; }

// A value or a refusal. Callers test ok() before value(); reading the wrong side aborts.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}            // NOLINT: implicit on purpose
  Result(Refusal refusal) : state_(std::in_place_index<1>, std::move(refusal)) {}  // NOLINT: implicit on purpose

  bool ok() const { return state_.index() == 0; }
  T& value() & {
    if (!ok()) check_failed("Result holds a refusal: " + refusal().message, std::source_location::current());
    return std::get<0>(state_);
  }
  const T& value() const& {
    if (!ok()) check_failed("Result holds a refusal: " + refusal().message, std::source_location::current());
    return std::get<0>(state_);
  }
  // By value, so that `for (auto& x : f().value().items)` does not read an object that is already destroyed.
  T value() && {
    if (!ok()) check_failed("Result holds a refusal: " + refusal().message, std::source_location::current());
    return std::get<0>(std::move(state_));
  }
  const Refusal& refusal() const {
    check(!ok(), "Result holds a value, not a refusal");
    return std::get<1>(state_);
  }

 private:
  std::variant<T, Refusal> state_;
};

// The result of an operation that has no value: it succeeds or is refused.
struct Unit {};
using Status = Result<Unit>;
inline Status ok_status() { return Unit{}; }

// The environment failed. main() prints what() and exits non-zero; a supervisor restarts the process.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Error with the text of errno appended: "open /x/y: No such file or directory".
Error errno_error(std::string_view what);

}  // namespace optserve
