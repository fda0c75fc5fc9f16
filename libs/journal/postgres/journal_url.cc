#include "journal/postgres/journal_url.h"

#include <libpq-fe.h>

#include <algorithm>
#include <memory>

#include "base/program.h"
#include "journal/journal.h"
#include "journal/postgres/connection.h"

namespace optserve::journal {

bool UrlParameters::has(const std::string& name) const {
  return std::find(names_.begin(), names_.end(), name) != names_.end();
}

std::vector<const char*> UrlParameters::pointers(const std::vector<std::string>& texts) {
  std::vector<const char*> found;
  for (const std::string& text : texts) found.push_back(text.c_str());
  found.push_back(nullptr);
  return found;
}

UrlParameters parameters_of(const std::string& url) {
  const auto free_options = [](PQconninfoOption* options) { PQconninfoFree(options); };
  const std::unique_ptr<PQconninfoOption, decltype(free_options)> options(PQconninfoParse(url.c_str(), nullptr),
                                                                          free_options);
  // libpq's message is left out, since it repeats parts of the URL that may belong to a password.
  if (!options) {
    throw ConfigurationError(
        "the journal's URL is none that PostgreSQL's library reads; expected "
        "postgresql://USER@HOST:PORT/DATABASE?sslmode=verify-full or the like");
  }
  UrlParameters parameters;
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
    if (option->val == nullptr || *option->val == '\0') continue;
    const std::string name = option->keyword;
    if (name == "password" || name == "sslpassword") {
      throw ConfigurationError(
          "the journal's URL has a password in it, where every user of the machine and every log can see it: use a "
          "password file (~/.pgpass or ?passfile=FILE), a client certificate, or the variable PGPASSWORD");
    }
    parameters.add(name, option->val);
  }
  // A dead server or network is noticed within seconds, and a read-only replica is not accepted.
  const std::pair<const char*, const char*> defaults[] = {
      {"application_name", "optserve"}, {"target_session_attrs", "read-write"},
      {"keepalives_idle", "1"},         {"keepalives_interval", "1"},
      {"keepalives_count", "3"},        {"tcp_user_timeout", "4000"}};
  for (const auto& [name, value] : defaults) {
    if (!parameters.has(name)) parameters.add(name, value);
  }
  return parameters;
}

void check_journal_url(const std::string& url) { parameters_of(url); }

std::string quoted_queue(const std::string& queue) {
  const auto is_plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  if (queue.empty() || queue.size() > 63 || !std::all_of(queue.begin(), queue.end(), is_plain) ||
      (queue[0] >= '0' && queue[0] <= '9') || queue.starts_with("pg_")) {
    throw ConfigurationError("the queue's name '" + queue.substr(0, 80) +
                             "' cannot be a schema: expected at most 63 of a-z, 0-9 and _, not a digit or pg_ first");
  }
  return "\"" + queue + "\"";
}

}  // namespace optserve::journal
