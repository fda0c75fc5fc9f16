#include "protocol/protocol_description.h"

#include <array>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "base/limits.h"
#include "protocol/codec.h"

namespace optserve::protocol {
namespace {

using Json = nlohmann::ordered_json;

// --- names of types and values, as the compiler spells them

template <class T>
constexpr std::string_view spelled() {
  return __PRETTY_FUNCTION__;
}
template <auto V>
constexpr std::string_view spelled_value() {
  return __PRETTY_FUNCTION__;
}

// "X" of "… [with T = optserve::protocol::X; …]".
std::string last_name(std::string_view spelled, std::string_view parameter) {
  const size_t begin = spelled.find(std::string(parameter) + " = ");
  check(begin != spelled.npos, "the compiler spells types in another way");
  std::string_view name = spelled.substr(begin + parameter.size() + 3);
  name = name.substr(0, name.find_first_of(";]"));
  return std::string(name.substr(name.rfind(':') + 1));
}

// "kEndOfText" is end_of_text.
std::string snake_case(std::string_view constant) {
  std::string text;
  for (const char c : constant.substr(1)) {
    if (std::isupper(static_cast<unsigned char>(c)) != 0 && !text.empty()) text += '_';
    text += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return text;
}

template <class E, size_t... I>
Json values_of(std::index_sequence<I...>) {
  constexpr WireRange kRange = wire_range(E{});
  Json values = Json::array();
  (values.push_back({{"value", kRange.first + I},
                     {"name", snake_case(last_name(spelled_value<static_cast<E>(kRange.first + I)>(), "V"))}}),
   ...);
  return values;
}

template <class T>
struct Inner {};
template <class T>
struct Inner<std::vector<T>> {
  using Type = T;
  static constexpr std::string_view kMark = "[]";
};
template <class T>
struct Inner<std::optional<T>> {
  using Type = T;
  static constexpr std::string_view kMark = "?";
};
template <class T>
concept Wrapped = requires {
  typename Inner<T>::Type;
};

// --- from the lists of fields to data

std::string unit_of(std::string_view structure, std::string_view field) {
  if (field.ends_with("_wall_ms")) return "ms since 1970";
  if (field.ends_with("_ms")) return "ms";
  if (field == "bytes" || field == "text_offset" || structure == "Credit" || field.starts_with("bytes_")) {
    return "bytes";
  }
  if (field.ends_with("_per_second")) return "1/s";
  if (field.ends_with("_tokens") || field == "tokens_per_second") return "tokens";
  return "";
}

// Fields that version 0.2.0 of optserve did not have.
const std::set<std::string_view> kAfterFirstRelease = {
    "SubmitOutcome.unfollowed", "Attach.text_digest",         "JobEvent.restarted",
    "SystemStatus.cancelled",   "SystemStatus.expired",       "JobResult.prompt_ids",
    "Register.slots",           "ServiceStatus.slots",        "JobSpec.traceparent",
    "JobResult.kind",           "JobResult.traceparent",      "JobResult.prompt",
    "JobResult.tries",          "JobAttempt.number",          "JobAttempt.began_ms",
    "JobAttempt.ended_ms",      "JobAttempt.service",         "JobAttempt.loss",
    "JobSummary.kind",          "ListJobs.newest_first",      "EncodeItem.traceparent",
    "DispatchItem.traceparent", "ConvertDispatch.traceparent"};

class Catalogue {
 public:
  template <class T>
  void add_message() {
    add_struct<T>();
  }
  const Json& structs() const { return structs_; }
  const Json& enumerations() const { return enumerations_; }

 private:
  template <class T>
  void add_struct() {
    const std::string name = last_name(spelled<T>(), "T");
    if (!known_.insert(name).second) return;
    const bool is_positional = requires { T::kPositional; };
    const size_t place = structs_.size();
    structs_.push_back({{"name", name}, {"form", is_positional ? "array" : "map"}, {"fields", Json::array()}});
    Json fields = Json::array();
    visit_fields(T{},
                 [&](std::string_view field, const auto& value) { fields.push_back(described(name, field, value)); });
    structs_[place]["fields"] = std::move(fields);
  }

  template <class T>
  Json described(const std::string& structure, std::string_view field, const T& value) {
    Json entry = {{"name", field}, {"type", type_text<T>()}, {"msgpack", msgpack_type<T>()}};
    if (const std::string unit = unit_of(structure, field); !unit.empty()) entry["unit"] = unit;
    entry["default"] = default_of(value);
    const FieldNote* note = find_note(structure, field);
    if (note != nullptr) add_bounds(entry, note->bounds);
    std::string meaning(note == nullptr ? "" : note->meaning);
    if (structure == "JobSpec" || structure == "DispatchItem") {
      sampling::for_each_field([&](const sampling::ParameterInfo& info, auto member) {
        if (field != info.name) return;
        using Member = std::remove_cvref_t<decltype(sampling::SamplingParams{}.*member)>;
        entry["sampling"] = true;
        meaning = info.help;
        if constexpr (!std::is_same_v<Member, bool> && !std::is_same_v<Member, uint64_t>) {
          add_bounds(entry, {FieldBounds::Of::kNumber, info.min, info.max});
          if (info.min_excluded) entry["min_excluded"] = true;
        }
      });
    }
    const bool is_later = kAfterFirstRelease.contains(structure + "." + std::string(field));
    entry["since"] = is_later ? "after 0.2.0" : "0.2.0";
    if (!meaning.empty()) entry["meaning"] = meaning;
    return entry;
  }

  static Json plain_number(double value) {
    return value == std::floor(value) ? Json(static_cast<int64_t>(value)) : Json(value);
  }

  static void add_bounds(Json& entry, const FieldBounds& bounds) {
    using Of = FieldBounds::Of;
    if (bounds.of == Of::kNothing) return;
    const std::string what = bounds.of == Of::kNumber ? "" : bounds.of == Of::kEntries ? "entries_" : "bytes_";
    entry[what + "min"] = plain_number(bounds.min);
    entry[what + "max"] = plain_number(bounds.max);
    if (bounds.of == Of::kName) entry["pattern"] = "[A-Za-z0-9._-]*";
  }

  template <class T>
  std::string type_text() {
    if constexpr (Wrapped<T>) {
      return type_text<typename Inner<T>::Type>() + std::string(Inner<T>::kMark);
    } else if constexpr (std::is_enum_v<T>) {
      const std::string name = last_name(spelled<T>(), "T");
      if (known_.insert(name).second) {
        constexpr WireRange kRange = wire_range(T{});
        enumerations_.push_back(
            {{"name", name}, {"values", values_of<T>(std::make_index_sequence<kRange.last - kRange.first + 1>{})}});
      }
      return name;
    } else if constexpr (std::is_same_v<T, bool>) {
      return "bool";
    } else if constexpr (std::is_integral_v<T>) {
      return (std::is_signed_v<T> ? "int" : "uint") + std::to_string(8 * sizeof(T));
    } else if constexpr (std::is_floating_point_v<T>) {
      return "float" + std::to_string(8 * sizeof(T));
    } else if constexpr (std::is_same_v<T, std::string>) {
      return "text";
    } else if constexpr (std::is_same_v<T, Bytes>) {
      return "bytes";
    } else if constexpr (std::is_same_v<T, Id128>) {
      return "id";
    } else {
      add_struct<T>();
      return last_name(spelled<T>(), "T");
    }
  }

  template <class T>
  static std::string msgpack_type() {
    if constexpr (requires {
                    typename std::optional<typename T::value_type>;
                    requires std::is_same_v<T, std::optional<typename T::value_type>>;
                  }) {
      return msgpack_type<typename T::value_type>() + " or nil";
    } else if constexpr (std::is_same_v<T, bool>) {
      return "bool";
    } else if constexpr (std::is_integral_v<T> || std::is_enum_v<T>) {
      return "int";
    } else if constexpr (std::is_floating_point_v<T>) {
      return "float";
    } else if constexpr (std::is_same_v<T, std::string>) {
      return "str";
    } else if constexpr (std::is_same_v<T, Bytes> || std::is_same_v<T, Id128>) {
      return "bin";
    } else if constexpr (Wrapped<T> || requires { T::kPositional; }) {
      return "array";
    } else {
      return "map";
    }
  }

  template <class T>
  static Json default_of(const T& value) {
    if constexpr (Wrapped<T>) {
      return std::is_same_v<T, std::optional<typename Inner<T>::Type>> ? Json() : Json::array();
    } else if constexpr (std::is_enum_v<T>) {
      return static_cast<int>(value);
    } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      return value;
    } else if constexpr (std::is_same_v<T, Id128>) {
      return value.hex();
    } else if constexpr (std::is_same_v<T, Bytes>) {
      return "";
    } else {
      return Json::object();  // a struct has its own defaults
    }
  }

  std::set<std::string> known_;
  Json structs_ = Json::array();
  Json enumerations_ = Json::array();
};

// --- what the code has no list of

struct Route {
  std::string_view message, from, to, answer;
};
constexpr Route kRoutes[] = {
    {"Submit", "client", "scheduler", "SubmitReply"},
    {"SubmitReply", "scheduler", "client", ""},
    {"Attach", "client", "scheduler", ""},
    {"JobEvents", "scheduler", "client", ""},
    {"JobFinished", "scheduler", "client", ""},
    {"Cancel", "client", "scheduler", "JobStatus"},
    {"GetJob", "client", "scheduler", "JobStatus"},
    {"JobStatus", "scheduler", "client", ""},
    {"GetStatus", "client", "scheduler", "SystemStatus"},
    {"SystemStatus", "scheduler", "client", ""},
    {"Refused", "scheduler", "anyone", ""},
    {"Ping", "anyone", "anyone", "Pong"},
    {"Pong", "anyone", "anyone", ""},
    {"Register", "service", "scheduler", "Registered"},
    {"Registered", "scheduler", "service", ""},
    {"Heartbeat", "service", "scheduler", "Pong"},
    {"Goodbye", "service", "scheduler", ""},
    {"Encode", "scheduler", "tokenizer", "Encoded"},
    {"Encoded", "tokenizer", "scheduler", ""},
    {"Decode", "scheduler", "tokenizer", "Decoded"},
    {"Decoded", "tokenizer", "scheduler", ""},
    {"Dispatch", "scheduler", "worker", ""},
    {"Revoke", "scheduler", "worker or converter", ""},
    {"Tokens", "worker", "scheduler", ""},
    {"PromptLogprobs", "worker", "scheduler", ""},
    {"LeaseFailed", "worker or converter", "scheduler", ""},
    {"ConvertDispatch", "scheduler", "converter", ""},
    {"ConvertProgress", "converter", "scheduler", ""},
    {"Credit", "client", "scheduler", ""},
    {"Control", "client", "scheduler", "SystemStatus"},
    {"ListJobs", "client", "scheduler", "JobList"},
    {"JobList", "scheduler", "client", ""},
    {"Requeue", "client", "scheduler", "JobStatus"},
    {"Purge", "client", "scheduler", "Purged"},
    {"Purged", "scheduler", "client", ""},
    {"GetGroup", "client", "scheduler", "GroupStatus"},
    {"GroupStatus", "scheduler", "client", ""},
    {"Backup", "client", "scheduler", "BackedUp"},
    {"BackedUp", "scheduler", "client", ""},
    {"Hypotheses", "worker", "scheduler", ""},
};

const Route& route_of(std::string_view message) {
  for (const Route& route : kRoutes) {
    if (route.message == message) return route;
  }
  check_failed("no route of " + std::string(message), std::source_location::current());
}

// Whether the same request may succeed later, and when.
struct Advice {
  bool retry;
  std::string_view when;
};
Advice advice_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUnknownModel:
      return {false, "when the model is served"};
    case ErrorCode::kIdempotencyConflict:
      return {false, "with another key"};
    case ErrorCode::kBusy:
    case ErrorCode::kStorageFull:
      return {true, "after `retry_after_ms`"};
    case ErrorCode::kUnavailable:
      return {true, "later"};
    case ErrorCode::kAttemptsExhausted:
      return {false, "after a look at the reason"};
    case ErrorCode::kInternal:
      return {false, "after a look at the log"};
    default:
      return {false, "no"};
  }
}

Json errors() {
  Json all = Json::array();
  constexpr WireRange kRange = wire_range(ErrorCode{});
  for (int code = kRange.first; code <= kRange.last; ++code) {
    const auto [retry, when] = advice_of(static_cast<ErrorCode>(code));
    all.push_back(
        {{"code", code}, {"name", error_code_name(static_cast<ErrorCode>(code))}, {"retry", retry}, {"when", when}});
  }
  return all;
}

Json bounds() {
  return {{"client_frame_bytes", limits::kClientMessageBytesMax},
          {"frame_bytes", limits::kInternalMessageBytesMax},
          {"depth", limits::kMessageDepthMax},
          {"map_entries", limits::kMessageMapMax},
          {"array_entries", limits::kMessageArrayMax},
          {"text_bytes", limits::kMessageStringMax},
          {"text_bytes_of_large_frames", limits::kInternalMessageBytesMax / 4},
          {"jobs_per_submit", limits::kJobsPerSubmitMax},
          {"jobs_per_list", limits::kJobsPerListMax},
          {"stop_string_bytes", limits::kStopStringBytesMax},
          {"stream_window_bytes_min", limits::kStreamWindowMin},
          {"stream_window_bytes_max", limits::kStreamWindowMax}};
}

// What an event, a result and each of its parts take of the window, measured by calling stream_cost().
Json stream_costs() {
  const auto more = [](auto change) {
    JobResult result;
    change(result);
    return stream_cost(result) - stream_cost(JobResult{});
  };
  JobEvent piece;
  piece.text = "x";
  return {{"event", stream_cost(JobEvent{})},
          {"byte_of_event_text", stream_cost(piece) - stream_cost(JobEvent{})},
          {"result", stream_cost(JobResult{})},
          {"byte_of_result_text", more([](JobResult& r) { r.text = "x"; })},
          {"byte_of_result_message", more([](JobResult& r) { r.message = "x"; })},
          {"id_of_ids", more([](JobResult& r) { r.ids = {1}; })},
          {"entry_of_prompt_logprobs", more([](JobResult& r) { r.prompt_logprobs = {0}; })},
          {"entry_of_logprobs", more([](JobResult& r) { r.logprobs = {0}; })},
          {"entry_of_best", more([](JobResult& r) {
             r.best = {{{1, 0}}};
           })},
          {"entry_of_prompt_best", more([](JobResult& r) {
             r.prompt_best = {{{1, 0}}};
           })}};
}

std::string hex_number(uint64_t value) {
  std::array<char, 19> text{};
  std::snprintf(text.data(), text.size(), "0x%016llx", static_cast<unsigned long long>(value));
  return text.data();
}

Json digests() {
  Json examples = Json::array();
  for (const char* text : {"", "a", "Once upon a time", "\u00e9"}) {
    examples.push_back({{"text", text}, {"digest", hex_number(text_digest(text))}});
  }
  return {{"start", hex_number(kDigestOfNothing)}, {"factor", hex_number(0x100000001b3)}, {"examples", examples}};
}

Json description() {
  Catalogue catalogue;
#define OPTSERVE_ADD(T) catalogue.add_message<T>();
  OPTSERVE_MESSAGES(OPTSERVE_ADD)
#undef OPTSERVE_ADD
  Json messages = Json::array();
  for (size_t i = 0; i < kMessageKinds; ++i) {
    const Route& route = route_of(message_name(i));
    messages.push_back({{"kind", i + 1}, {"name", route.message}, {"from", route.from}, {"to", route.to}});
    if (!route.answer.empty()) messages.back()["answer"] = route.answer;
  }
  return {{"made_by", "describe_protocol (libs/protocol), from the lists of fields in the code"},
          {"version", kProtocolVersion},
          {"envelope", {"version", "kind", "body"}},
          {"limits", bounds()},
          {"stream_cost", stream_costs()},
          {"text_digest", digests()},
          {"errors", errors()},
          {"messages", messages},
          {"enumerations", catalogue.enumerations()},
          {"structs", catalogue.structs()}};
}

// An array or object of plain values is written on one line, as a field is.
bool is_flat(const Json& value) {
  for (const auto& item : value) {
    if (item.is_structured() && !item.empty()) return false;
  }
  return true;
}

void print(const Json& value, const std::string& indent, std::string& out) {
  if (!value.is_structured() || is_flat(value)) {
    out += value.dump(-1);
    return;
  }
  const bool is_object = value.is_object();
  out += is_object ? "{\n" : "[\n";
  size_t left = value.size();
  for (const auto& [key, item] : value.items()) {
    out += indent + " ";
    if (is_object) out += Json(key).dump() + ": ";
    print(item, indent + " ", out);
    out += --left > 0 ? ",\n" : "\n";
  }
  out += indent + (is_object ? "}" : "]");
}

}  // namespace

std::string describe_protocol() {
  std::string text;
  print(description(), "", text);
  return text + "\n";
}

}  // namespace optserve::protocol
