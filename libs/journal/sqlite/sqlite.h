// SQLite with errors as exceptions and statements that reset themselves. Used by one thread at a time.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"
#include "journal/journal_storage.h"

namespace optserve::journal {

// A failed call, with SQLite's own words. `code` is the primary result code.
class SqliteError : public Error {
 public:
  SqliteError(const std::string& what, int code) : Error(what), code_(code) {}
  int code() const { return code_; }

 private:
  int code_;
};

class Database {
 public:
  enum class Open { kCreate, kExisting };

  explicit Database(const std::string& path, Open how = Open::kCreate);
  void execute(const std::string& sql);
  int64_t query_number(const char* sql);
  std::string query_text(const char* sql);
  int64_t changes() const { return sqlite3_changes64(handle_.get()); }
  bool is_in_transaction() const { return sqlite3_get_autocommit(handle_.get()) == 0; }
  const std::string& path() const { return path_; }
  sqlite3* handle() { return handle_.get(); }
  // Throws SqliteError, or DamagedError if SQLite finds damage.
  [[noreturn]] void fail(std::string_view what, int code) const;

 private:
  struct Close {
    void operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
  };

  std::string path_;
  std::unique_ptr<sqlite3, Close> handle_;
};

// A prepared statement. bind_* count parameters from 1, and the bytes must live until step() has been called. column_*
// count from 0.
class Statement {
 public:
  Statement(Database& database, const std::string& sql);
  Statement& bind(int index, int64_t value);
  Statement& bind_blob(int index, std::string_view bytes);
  Statement& bind_text(int index, std::string_view text);
  bool step();  // true: a row; false: done, and the statement is reset
  void run();   // for statements without rows
  // Steps to the end, since what a pragma writes is committed, or fails, after its last row.
  void finish();
  void reset() { sqlite3_reset(handle_.get()); }
  int64_t column_number(int index) { return sqlite3_column_int64(handle_.get(), index); }
  std::string_view column_bytes(int index);  // valid until the next step()
  std::string column_text(int index) { return std::string(column_bytes(index)); }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* handle) const { sqlite3_finalize(handle); }
  };
  Database& database_;
  std::unique_ptr<sqlite3_stmt, Finalize> handle_;
};

}  // namespace optserve::journal
