#include "journal/sqlite.h"

namespace optserve::journal {

Database::Database(const std::string& path) : path_(path) {
  sqlite3* handle = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  handle_.reset(handle);  // SQLite gives a handle even when it fails
  if (code != SQLITE_OK) fail("open", code);
  sqlite3_extended_result_codes(handle, 1);
}

void Database::fail(std::string_view what, int code) const {
  std::string text = "journal " + path_ + ": " + std::string(what) + ": " + sqlite3_errstr(code);
  if (handle_ && sqlite3_errcode(handle_.get()) != SQLITE_OK) {
    text += std::string(" (") + sqlite3_errmsg(handle_.get()) + ")";
  }
  const int primary = code & 0xff;
  if (primary == SQLITE_FULL) {
    text +=
        ". The disk or the journal's size limit is full: free space, then start the scheduler again; jobs that "
        "were accepted are safe";
  } else if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB) {
    text += ". The file is damaged or not a journal: move it away and restore the latest backup";
  }
  throw SqliteError(text, primary);
}

void Database::execute(const char* sql) {
  const int code = sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail(sql, code);
}

int64_t Database::query_number(const char* sql) {
  Statement statement(*this, sql);
  return statement.step() ? statement.column_number(0) : 0;
}

std::string Database::query_text(const char* sql) {
  Statement statement(*this, sql);
  return statement.step() ? std::string(statement.column_bytes(0)) : std::string();
}

Statement::Statement(Database& database, const char* sql) : database_(database) {
  sqlite3_stmt* handle = nullptr;
  const int code = sqlite3_prepare_v3(database.handle(), sql, -1, SQLITE_PREPARE_PERSISTENT, &handle, nullptr);
  handle_.reset(handle);
  if (code != SQLITE_OK) database.fail(sql, code);
}

Statement& Statement::bind(int index, int64_t value) {
  if (const int code = sqlite3_bind_int64(handle_.get(), index, value); code != SQLITE_OK) database_.fail("bind", code);
  return *this;
}

Statement& Statement::bind_blob(int index, std::string_view bytes) {
  // An empty view may have a null pointer, which would bind NULL.
  const char* data = bytes.empty() ? "" : bytes.data();
  const int code = sqlite3_bind_blob64(handle_.get(), index, data, bytes.size(), SQLITE_STATIC);
  if (code != SQLITE_OK) database_.fail("bind", code);
  return *this;
}

Statement& Statement::bind_text(int index, std::string_view text) {
  const char* data = text.empty() ? "" : text.data();
  const int code = sqlite3_bind_text64(handle_.get(), index, data, text.size(), SQLITE_STATIC, SQLITE_UTF8);
  if (code != SQLITE_OK) database_.fail("bind", code);
  return *this;
}

bool Statement::step() {
  const int code = sqlite3_step(handle_.get());
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) {
    try {
      database_.fail(sqlite3_sql(handle_.get()), code);
    } catch (...) {
      reset();
      throw;
    }
  }
  reset();
  return false;
}

void Statement::run() {
  const bool row = step();
  check(!row, "a statement without rows returned one");
}

std::string_view Statement::column_bytes(int index) {
  const void* data = sqlite3_column_blob(handle_.get(), index);
  const int size = sqlite3_column_bytes(handle_.get(), index);
  return data ? std::string_view(static_cast<const char*>(data), static_cast<size_t>(size)) : std::string_view();
}

}  // namespace optserve::journal
