// libpq with errors as exceptions, time limits on all waits, and calls that are sent together (pipeline mode). Used by
// one thread at a time.
#pragma once

#include <libpq-fe.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace optserve::journal {

// A failed call, with the server's own words; they never hold a password.
class PostgresError : public Error {
 public:
  PostgresError(const std::string& what, std::string state) : Error(what), state_(std::move(state)) {}
  // The error code of five characters, as in the appendix of PostgreSQL's manual; "" if the connection itself failed.
  const std::string& state() const { return state_; }
  // True if the connection is no longer of use; what was in progress may or may not have happened.
  bool is_broken() const;
  bool is_full() const { return state_ == "53100"; }
  // True if nothing was changed and the same may succeed when it is tried again.
  bool is_passing() const { return state_ == "40001" || state_ == "40P01" || state_ == "55P03"; }

 private:
  std::string state_;
};

// The values of a call, in binary form.
class Values {
 public:
  Values& add(int64_t number);
  Values& add(std::string_view bytes);
  size_t size() const { return values_.size(); }
  const std::string& operator[](size_t index) const { return values_[index]; }

 private:
  friend class Columns;
  std::vector<std::string> values_;
};

// Rows as one array for each column, so that a statement takes any number of them: "FROM unnest($1::bigint[], ...)".
class Columns {
 public:
  // Each letter of `kinds` is a column: i for bigint, b for bytea.
  explicit Columns(std::string_view kinds);
  Columns& add(int64_t number);
  Columns& add(std::string_view bytes);
  size_t rows() const { return values_ / kinds_.size(); }
  Values take();

 private:
  std::string& next(char kind, size_t size);

  std::string kinds_;
  std::vector<std::string> arrays_;
  size_t values_ = 0;  // added so far
};

class Rows {
 public:
  explicit Rows(PGresult* result) : result_(result) {}
  int size() const { return PQntuples(result_.get()); }
  bool is_null(int row, int column) const { return PQgetisnull(result_.get(), row, column) != 0; }
  int64_t number(int row, int column) const;  // of bigint, integer and boolean
  std::string_view bytes(int row, int column) const;
  std::string text(int row, int column) const { return std::string(bytes(row, column)); }
  int64_t changes() const;  // rows that the statement inserted, updated or deleted
  std::string_view tag() const { return PQcmdStatus(result_.get()); }

 private:
  struct Clear {
    void operator()(PGresult* result) const { PQclear(result); }
  };
  std::unique_ptr<PGresult, Clear> result_;
};

struct Prepared {
  const char* name;
  const char* sql;
};

struct Call {
  const char* prepared = nullptr;  // the name of a prepared statement; nullptr: `sql` is the statement
  std::string sql{};
  Values values{};
};

class Connection {
 public:
  // Throws PostgresError if the server does not let us in within `patience`, ConfigurationError for a bad URL. Sessions
  // look for tables in the schema `queue` first, which need not exist.
  Connection(const std::string& url, const std::string& queue, Duration patience);

  // Without an answer within this time, the connection counts as broken. Zero means without limit.
  void set_patience(Duration patience) { patience_ = patience; }
  void prepare(std::span<const Prepared> statements);
  // Sends all calls at once. After the first call that fails the others do nothing, an open transaction is rolled back,
  // and the error is thrown.
  std::vector<Rows> run(std::span<const Call> calls);
  Rows run(Call call);
  Rows query(const std::string& sql, Values values = {}) { return run(Call{nullptr, sql, std::move(values)}); }

  int pid() const { return PQbackendPID(handle_.get()); }
  // Where it is connected to, for people.
  std::string place() const;

 private:
  struct Finish {
    void operator()(PGconn* handle) const { PQfinish(handle); }
  };
  void connect(const std::string& url, const std::string& queue);
  void send(const Call& call);
  void flush();
  void wait(bool to_write);
  PGresult* next_result();
  std::vector<Rows> take(size_t count);
  void sync();
  [[noreturn]] void fail_broken(const std::string& what);

  const SystemClock clock_;
  Duration patience_;
  Instant deadline_{};
  std::unique_ptr<PGconn, Finish> handle_;
};

// "name" as an identifier of SQL. Throws ConfigurationError unless it is a plain one: letters, digits and _, at
// most 63.
std::string quoted_queue(const std::string& queue);

}  // namespace optserve::journal
