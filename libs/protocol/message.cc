#include "protocol/message.h"

#include <array>

#include "base/check.h"

namespace optserve::protocol {
namespace {

#define OPTSERVE_NAME(T) #T,
constexpr std::array<std::string_view, kMessageKinds> kMessageNames = {OPTSERVE_MESSAGES(OPTSERVE_NAME)};
#undef OPTSERVE_NAME

}  // namespace

Message::Message() = default;
Message::Message(const Message& other) = default;
Message::Message(Message&& other) noexcept = default;
Message& Message::operator=(const Message& other) = default;
Message& Message::operator=(Message&& other) noexcept = default;
Message::~Message() = default;

template <MessageKind T>
Message::Message(T message) : detail::Messages::Type(std::in_place_type<T>, std::move(message)) {}

#define OPTSERVE_CONSTRUCTOR(T) template Message::Message(T);
OPTSERVE_MESSAGES(OPTSERVE_CONSTRUCTOR)
#undef OPTSERVE_CONSTRUCTOR

std::string_view message_name(const Message& message) { return message_name(message.index()); }

std::string_view message_name(size_t index) {
  check(index < kMessageKinds, "message_name: no such kind");
  return kMessageNames[index];
}

}  // namespace optserve::protocol
