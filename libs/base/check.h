// Checks of conditions that hold unless the program itself has a bug. A failed check prints its values and aborts. Bad
// input is never reported this way.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <source_location>
#include <sstream>
#include <string_view>

namespace optserve {

[[noreturn]] inline void check_failed(std::string_view what, const std::source_location& where) {
  std::fprintf(stderr, "CHECK failed at %s:%u (%s): %.*s\n", where.file_name(), where.line(), where.function_name(),
               static_cast<int>(what.size()), what.data());
  std::abort();
}

// Aborts with `what` unless `condition` holds.
inline void check(bool condition, std::string_view what,
                  const std::source_location where = std::source_location::current()) {
  if (!condition) {
    [[unlikely]] check_failed(what, where);
  }
}

// Aborts with both values unless they are equal.
template <class A, class B>
void check_eq(const A& a, const B& b, std::string_view what,
              const std::source_location where = std::source_location::current()) {
  if (a == b) {
    [[likely]] return;
  }
  std::ostringstream text;
  text << what << ": " << a << " != " << b;
  check_failed(text.str(), where);
}

}  // namespace optserve
