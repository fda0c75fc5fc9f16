// Every message, and the type that holds one of any kind.
#pragma once

#include <cstddef>
#include <string_view>
#include <type_traits>
#include <variant>

#include "protocol/client_messages.h"
#include "protocol/operator_messages.h"
#include "protocol/service_messages.h"

namespace optserve::protocol {

// A message's place in this list is its kind on the wire, counted from 1: append only. A new message needs its struct
// in one of the headers above, its name here, a row in docs/protocol.md and its golden bytes (tests/data/protocol_v1).
// clang-format off
#define OPTSERVE_MESSAGES(X)                                                                                 \
  X(Submit) X(SubmitReply) X(Attach) X(JobEvents) X(JobFinished) X(Cancel) X(GetJob) X(JobStatus)            \
  X(GetStatus) X(SystemStatus) X(Refused) X(Ping) X(Pong)                                                    \
  X(Register) X(Registered) X(Heartbeat) X(Goodbye) X(Encode) X(Encoded) X(Decode) X(Decoded)                \
  X(Dispatch) X(Revoke) X(Tokens) X(PromptLogprobs) X(LeaseFailed) X(ConvertDispatch) X(ConvertProgress)     \
  X(Credit)                                                                                                  \
  X(Control) X(ListJobs) X(JobList) X(Requeue) X(Purge) X(Purged) X(GetGroup) X(GroupStatus)                 \
  X(Backup) X(BackedUp)                                                                                      \
  X(Hypotheses)
// clang-format on

namespace detail {

template <class Before, class... Kinds>
struct VariantOf {
  using Type = std::variant<Kinds...>;
  template <class T>
  static constexpr bool kHas = (std::is_same_v<T, Kinds> || ...);
};
#define OPTSERVE_AFTER_COMMA(T) , T
using Messages = VariantOf<void OPTSERVE_MESSAGES(OPTSERVE_AFTER_COMMA)>;
#undef OPTSERVE_AFTER_COMMA

}  // namespace detail

template <class T>
concept MessageKind = detail::Messages::kHas<T>;

// One message of any kind; std::visit, std::get_if and the like accept it, since it is a variant. Its constructors and
// destructor are compiled once, in message.cc: with 40 kinds, they would take seconds in every file that sends a
// message.
class Message : public detail::Messages::Type {
 public:
  Message();  // an empty Submit
  template <MessageKind T>
  Message(T message);  // NOLINT: implicit on purpose
  Message(const Message& other);
  Message(Message&& other) noexcept;
  Message& operator=(const Message& other);
  Message& operator=(Message&& other) noexcept;
  ~Message();
};

inline constexpr size_t kMessageKinds = std::variant_size_v<detail::Messages::Type>;

// "Submit", for logs and metrics.
std::string_view message_name(const Message& message);
// The same by index in the list, 0 to kMessageKinds - 1.
std::string_view message_name(size_t index);

}  // namespace optserve::protocol
