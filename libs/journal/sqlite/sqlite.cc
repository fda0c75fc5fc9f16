#include "journal/sqlite/sqlite.h"

#include "journal/crc32c.h"

namespace optserve::journal {
namespace {

// SQL function row_crc(...): CRC-32C over the values of a row, each with its kind and length, so that different rows
// give different bytes. SQLite calls it with plain arrays.
void row_crc(sqlite3_context* context, int count, sqlite3_value** values) {
  uint32_t crc = 0;
  const auto add = [&crc](char kind, const void* bytes, int64_t size) {
    crc = crc32c({&kind, 1}, crc);
    crc = crc32c({reinterpret_cast<const char*>(&size), sizeof size}, crc);
    if (size > 0) crc = crc32c({static_cast<const char*>(bytes), static_cast<size_t>(size)}, crc);
  };
  for (int i = 0; i < count; ++i) {
    sqlite3_value* value = values[i];
    switch (sqlite3_value_type(value)) {
      case SQLITE_INTEGER: {
        const int64_t number = sqlite3_value_int64(value);
        add('i', &number, sizeof number);
        break;
      }
      case SQLITE_NULL:
        add('n', nullptr, 0);
        break;
      case SQLITE_FLOAT: {
        const double number = sqlite3_value_double(value);
        add('f', &number, sizeof number);
        break;
      }
      default: {
        const void* bytes = sqlite3_value_blob(value);
        add('b', bytes, sqlite3_value_bytes(value));
      }
    }
  }
  sqlite3_result_int64(context, crc);
}

}  // namespace

Database::Database(const std::string& path, Open how) : path_(path) {
  sqlite3* handle = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (how == Open::kCreate ? SQLITE_OPEN_CREATE : 0);
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags, nullptr);
  handle_.reset(handle);  // SQLite returns a handle even when it fails
  if (code != SQLITE_OK) fail("open", code);
  sqlite3_extended_result_codes(handle, 1);
  const int added =
      sqlite3_create_function_v2(handle, "row_crc", -1, SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY, nullptr,
                                 row_crc, nullptr, nullptr, nullptr);
  if (added != SQLITE_OK) fail("row_crc", added);
}

void Database::fail(std::string_view what, int code) const {
  std::string text = "journal " + path_ + ": " + std::string(what) + ": " + sqlite3_errstr(code);
  if (handle_ && sqlite3_errcode(handle_.get()) != SQLITE_OK) {
    text += std::string(" (") + sqlite3_errmsg(handle_.get()) + ")";
  }
  const int primary = code & 0xff;
  if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB) {
    throw DamagedError(text + ". The file is damaged or not a journal: move it away and restore the latest backup");
  }
  if (primary == SQLITE_FULL) {
    text +=
        ". The disk or the journal's size limit is full: free space, then start the scheduler again; jobs that "
        "were accepted are safe";
  }
  throw SqliteError(text, primary);
}

void Database::execute(const std::string& sql) {
  const int code = sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) fail(sql, code);
}

int64_t Database::query_number(const char* sql) {
  Statement statement(*this, sql);
  const int64_t number = statement.step() ? statement.column_number(0) : 0;
  statement.finish();
  return number;
}

std::string Database::query_text(const char* sql) {
  Statement statement(*this, sql);
  std::string text = statement.step() ? statement.column_text(0) : std::string();
  statement.finish();
  return text;
}

Statement::Statement(Database& database, const std::string& sql) : database_(database) {
  sqlite3_stmt* handle = nullptr;
  const int code = sqlite3_prepare_v3(database.handle(), sql.c_str(), static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT, &handle, nullptr);
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

void Statement::finish() {
  while (sqlite3_stmt_busy(handle_.get()) != 0 && step()) {
  }
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
