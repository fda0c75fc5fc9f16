// Header fields of a request or an answer, in their order. Names are compared without regard to case.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace optserve::http {

class Headers {
 public:
  using Field = std::pair<std::string, std::string>;

  Headers() = default;
  Headers(std::initializer_list<Field> fields) : fields_(fields) {}

  void add(std::string_view name, std::string_view value);
  void set(std::string_view name, std::string_view value);  // replaces every field of this name
  // The value of the first field of this name; nullptr if there is none.
  const std::string* find(std::string_view name) const;
  // The same, empty if there is none.
  std::string_view get(std::string_view name) const;
  size_t count(std::string_view name) const;
  // Whether `token` is an element of the comma-separated lists of this name, such as "close" of Connection.
  bool has_token(std::string_view name, std::string_view token) const;

  size_t size() const { return fields_.size(); }
  auto begin() const { return fields_.begin(); }
  auto end() const { return fields_.end(); }

 private:
  std::vector<Field> fields_;
};

// ASCII only, as names in HTTP are.
bool equal_ignoring_case(std::string_view a, std::string_view b);
// Without spaces and tabs at both ends.
std::string_view trimmed(std::string_view text);
bool is_token(std::string_view text);        // of RFC 9110: a method or the name of a header field
bool is_field_value(std::string_view text);  // no control characters but tabs

}  // namespace optserve::http
