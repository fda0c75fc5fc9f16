// The URL of a journal in PostgreSQL, as libpq reads it.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace optserve::journal {

class UrlParameters {
 public:
  void add(std::string name, std::string value) {
    names_.push_back(std::move(name));
    values_.push_back(std::move(value));
  }
  bool has(const std::string& name) const;
  // Terminated by a null pointer, as libpq expects; valid while this object lives and does not change.
  std::vector<const char*> names() const { return pointers(names_); }
  std::vector<const char*> values() const { return pointers(values_); }

 private:
  static std::vector<const char*> pointers(const std::vector<std::string>& texts);
  std::vector<std::string> names_, values_;
};

// What the URL says, and what a journal needs that it does not say. Throws ConfigurationError as check_journal_url()
// does.
UrlParameters parameters_of(const std::string& url);

}  // namespace optserve::journal
