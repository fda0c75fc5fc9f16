// How a struct of the protocol lists its fields once. Their order and names here are those on the wire.
//   OPTSERVE_FIELDS(request, jobs)
// gives the struct a fields(f) that calls f("request", request) and then f("jobs", jobs). A struct with a field that
// has a different name on the wire, or that includes the fields of another struct, has a handwritten fields(), in which
// OPTSERVE_VISIT(f, request, jobs) does the same.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace optserve::protocol {
namespace detail {

constexpr std::string_view kBetweenNames = ", ";  // as the preprocessor writes a list of arguments

constexpr size_t count_names(std::string_view list) {
  size_t count = 1;
  for (size_t at = list.find(kBetweenNames); at != list.npos; at = list.find(kBetweenNames, at + 1)) ++count;
  return count;
}

template <size_t N>
constexpr std::array<std::string_view, N> split_names(std::string_view list) {
  std::array<std::string_view, N> names{};
  for (std::string_view& name : names) {
    name = list.substr(0, list.find(kBetweenNames));
    list.remove_prefix(std::min(list.size(), name.size() + kBetweenNames.size()));
  }
  return names;
}

template <class F, size_t N, class... Fields>
void visit_named(F&& f, const std::array<std::string_view, N>& names, Fields&... fields) {
  static_assert(N == sizeof...(Fields));
  const std::string_view* name = names.data();
  (f(*name++, fields), ...);
}

}  // namespace detail

#define OPTSERVE_VISIT(f, ...)                                                                      \
  {                                                                                                 \
    static constexpr size_t kCount = ::optserve::protocol::detail::count_names(#__VA_ARGS__);       \
    static constexpr auto kNames = ::optserve::protocol::detail::split_names<kCount>(#__VA_ARGS__); \
    ::optserve::protocol::detail::visit_named(f, kNames, __VA_ARGS__);                              \
  }

#define OPTSERVE_FIELDS(...)       \
  template <class F>               \
  void fields(F&& f) {             \
    OPTSERVE_VISIT(f, __VA_ARGS__) \
  }

// fields() serves reading and writing, so it is not a const member; visitors of a const value get const fields.
template <class T, class F>
void visit_fields(const T& value, F&& f) {
  const_cast<T&>(value).fields([&f](std::string_view name, const auto& field) { f(name, field); });
}

// The values of an enumeration that are valid on the wire. Each enumeration of the protocol has a wire_range(E) beside
// it, which the codec finds by the argument's type.
struct WireRange {
  uint8_t first;
  uint8_t last;
};

}  // namespace optserve::protocol
