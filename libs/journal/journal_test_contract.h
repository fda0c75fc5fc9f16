// For tests: what must hold for a journal in a file as well as for one in PostgreSQL.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "journal/journal_test_support.h"
#include "journal/postgres/postgres_test_server.h"

namespace optserve::journal::testing {

enum class Kind { kSqlite, kPostgres };

class JournalContract : public ::testing::TestWithParam<Kind> {
 protected:
  // An empty journal, which is the same one each time it is opened.
  JournalContract() {
    if (is_sqlite()) {
      options.path = folder.file("journal.db");
    } else {
      options.path = shared_server().url();
      options.queue = fresh_queue(shared_server());
      options.stand_by = [](const std::string&) { return true; };
    }
  }
  bool is_sqlite() const { return GetParam() == Kind::kSqlite; }
  int64_t count(const std::string& table) {
    if (is_sqlite()) return Database(options.path).query_number(("SELECT count(*) FROM " + table).c_str());
    return Connection(options.path, options.queue, seconds(5)).query("SELECT count(*) FROM " + table).number(0, 0);
  }

  TempFolder folder;
  JournalOptions options;
};

inline std::string kind_name(const ::testing::TestParamInfo<Kind>& info) {
  return info.param == Kind::kSqlite ? "Sqlite" : "Postgres";
}

}  // namespace optserve::journal::testing

#define OPTSERVE_JOURNAL_CONTRACT(Suite)                                                                       \
  INSTANTIATE_TEST_SUITE_P(Stores, Suite, ::testing::Values(testing::Kind::kSqlite, testing::Kind::kPostgres), \
                           testing::kind_name)
