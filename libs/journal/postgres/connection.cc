#include "journal/postgres/connection.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/program.h"
#include "journal/journal.h"
#include "journal/postgres/journal_url.h"

namespace optserve::journal {
namespace {

constexpr uint32_t kBigintOid = 20, kByteaOid = 17;
constexpr size_t kArrayHeaderBytes = 20;

void put_big_endian(std::string& to, uint64_t value, size_t bytes) {
  for (size_t i = bytes; i-- > 0;) to.push_back(static_cast<char>(value >> (8 * i)));
}

uint64_t big_endian_of(std::string_view bytes) {
  uint64_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

// libpq's messages have several lines.
std::string one_line(const char* text) {
  std::string line(text == nullptr ? "" : text);
  std::replace(line.begin(), line.end(), '\n', ' ');
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

}  // namespace

bool PostgresError::is_broken() const {
  // The server ends the session or is (no longer) writable; a new connection may find a better server.
  return state_.empty() || state_.starts_with("08") || state_.starts_with("57P") || state_ == "25006";
}

Values& Values::add(int64_t number) {
  put_big_endian(values_.emplace_back(), static_cast<uint64_t>(number), sizeof number);
  return *this;
}

Values& Values::add(std::string_view bytes) {
  values_.emplace_back(bytes);
  return *this;
}

Columns::Columns(std::string_view kinds) : kinds_(kinds), arrays_(kinds.size(), std::string(kArrayHeaderBytes, '\0')) {}

std::string& Columns::next(char kind, size_t size) {
  const size_t column = values_++ % kinds_.size();
  check(kinds_[column] == kind, "a value of another kind than its column");
  put_big_endian(arrays_[column], size, 4);
  return arrays_[column];
}

Columns& Columns::add(int64_t number) {
  put_big_endian(next('i', sizeof number), static_cast<uint64_t>(number), sizeof number);
  return *this;
}

Columns& Columns::add(std::string_view bytes) {
  next('b', bytes.size()).append(bytes);
  return *this;
}

Values Columns::take() {
  check(values_ % kinds_.size() == 0, "a row without its last values");
  Values values;
  for (size_t i = 0; i < kinds_.size(); ++i) {
    std::string header;
    put_big_endian(header, 1, 4);  // dimensions
    put_big_endian(header, 0, 4);  // no nulls
    put_big_endian(header, kinds_[i] == 'i' ? kBigintOid : kByteaOid, 4);
    put_big_endian(header, rows(), 4);
    put_big_endian(header, 1, 4);  // number of the first element
    arrays_[i].replace(0, kArrayHeaderBytes, header);
    values.values_.push_back(std::move(arrays_[i]));
  }
  return values;
}

int64_t Rows::number(int row, int column) const {
  const std::string_view value = bytes(row, column);
  if (value.size() == 4) return static_cast<int32_t>(big_endian_of(value));
  return static_cast<int64_t>(big_endian_of(value));
}

std::string_view Rows::bytes(int row, int column) const {
  return {PQgetvalue(result_.get(), row, column), static_cast<size_t>(PQgetlength(result_.get(), row, column))};
}

int64_t Rows::changes() const {
  const std::string text = PQcmdTuples(result_.get());
  return text.empty() ? 0 : std::stoll(text);
}

Connection::Connection(const std::string& url, const std::string& queue, Duration patience) : patience_(patience) {
  connect(url, queue);
}

void Connection::connect(const std::string& url, const std::string& queue) {
  const Instant deadline = clock_.now() + patience_;
  const UrlParameters parameters = parameters_of(url);
  handle_.reset(PQconnectStartParams(parameters.names().data(), parameters.values().data(), 0));
  if (!handle_) throw PostgresError("PostgreSQL: no memory for a connection", "");
  // Notices are dropped: errors are thrown, and nothing else is of interest.
  PQsetNoticeProcessor(
      handle_.get(), [](void*, const char*) {}, nullptr);
  deadline_ = deadline;
  for (PostgresPollingStatusType status = PGRES_POLLING_WRITING; status != PGRES_POLLING_OK;) {
    if (PQstatus(handle_.get()) == CONNECTION_BAD || status == PGRES_POLLING_FAILED) fail_broken("connect");
    pollfd waiting{PQsocket(handle_.get()), static_cast<short>(status == PGRES_POLLING_READING ? POLLIN : POLLOUT), 0};
    const auto left = std::chrono::ceil<milliseconds>(deadline - clock_.now());
    if (left.count() <= 0) throw PostgresError("PostgreSQL at " + place() + " does not answer", "");
    if (::poll(&waiting, 1, static_cast<int>(left.count())) > 0) status = PQconnectPoll(handle_.get());
  }
  if (PQsetnonblocking(handle_.get(), 1) != 0 || PQenterPipelineMode(handle_.get()) != 1) fail_broken("connect");
  // Forces index scans, whatever the statistics of tables that change this fast say. A server that loses the connection
  // ends the session within 4 s, so that its lock becomes free.
  const std::pair<const char*, std::string> settings[] = {{"search_path", quoted_queue(queue)},
                                                          {"client_encoding", "UTF8"},
                                                          {"enable_seqscan", "off"},
                                                          {"enable_hashjoin", "off"},
                                                          {"enable_mergejoin", "off"},
                                                          {"plan_cache_mode", "force_generic_plan"},
                                                          {"jit", "off"},  // misled by the costs of what is off
                                                          {"tcp_keepalives_idle", "1"},
                                                          {"tcp_keepalives_interval", "1"},
                                                          {"tcp_keepalives_count", "3"},
                                                          {"tcp_user_timeout", "4000"},
                                                          {"client_connection_check_interval", "1000"}};
  std::vector<Call> calls;
  for (const auto& [name, value] : settings) {
    Call& call = calls.emplace_back(Call{nullptr, "SELECT set_config($1::text, $2::text, false)", {}});
    call.values.add(std::string_view(name)).add(value);
  }
  // This is set in case somebody has turned it off for the database or the role, without a journal in mind.
  calls.push_back({nullptr,
                   "SELECT set_config('synchronous_commit', 'on', false) WHERE "
                   "current_setting('synchronous_commit') = 'off'",
                   {}});
  run(calls);
}

std::string Connection::place() const {
  const char* host = PQhost(handle_.get());
  const char* port = PQport(handle_.get());
  const char* database = PQdb(handle_.get());
  const auto part = [](const char* text) { return std::string(text == nullptr ? "" : text); };
  return part(host) + ":" + part(port) + "/" + part(database);
}

void Connection::fail_broken(const std::string& what) {
  throw PostgresError("PostgreSQL at " + place() + ": " + what + ": " + one_line(PQerrorMessage(handle_.get())), "");
}

void Connection::prepare(std::span<const Prepared> statements) {
  deadline_ = clock_.now() + patience_;
  for (const Prepared& statement : statements) {
    if (PQsendPrepare(handle_.get(), statement.name, statement.sql, 0, nullptr) != 1) fail_broken("prepare");
  }
  sync();
  take(statements.size());
}

void Connection::send(const Call& call) {
  std::vector<const char*> values;
  std::vector<int> lengths, formats;
  for (size_t i = 0; i < call.values.size(); ++i) {
    values.push_back(call.values[i].data());
    lengths.push_back(static_cast<int>(call.values[i].size()));
    formats.push_back(1);
  }
  const int count = static_cast<int>(values.size());
  const int sent = call.prepared != nullptr ? PQsendQueryPrepared(handle_.get(), call.prepared, count, values.data(),
                                                                  lengths.data(), formats.data(), 1)
                                            : PQsendQueryParams(handle_.get(), call.sql.c_str(), count, nullptr,
                                                                values.data(), lengths.data(), formats.data(), 1);
  if (sent != 1) fail_broken("send");
}

std::vector<Rows> Connection::run(std::span<const Call> calls) {
  deadline_ = clock_.now() + patience_;
  for (const Call& call : calls) send(call);
  sync();
  try {
    return take(calls.size());
  } catch (const PostgresError& error) {
    if (error.is_broken() || PQtransactionStatus(handle_.get()) == PQTRANS_IDLE) throw;
    send({nullptr, "ROLLBACK", {}});
    sync();
    take(1);
    throw;
  }
}

Rows Connection::run(Call call) { return std::move(run(std::span<const Call>(&call, 1)).at(0)); }

void Connection::sync() {
  if (PQpipelineSync(handle_.get()) != 1) fail_broken("send");
  flush();
}

void Connection::flush() {
  for (;;) {
    const int left = PQflush(handle_.get());
    if (left == 0) return;
    if (left < 0) fail_broken("send");
    wait(true);
  }
}

void Connection::wait(bool to_write) {
  pollfd waiting{PQsocket(handle_.get()), static_cast<short>(POLLIN | (to_write ? POLLOUT : 0)), 0};
  int left = -1;
  if (patience_ > Duration::zero()) {
    left = static_cast<int>(std::max<int64_t>(0, std::chrono::ceil<milliseconds>(deadline_ - clock_.now()).count()));
  }
  const int ready = ::poll(&waiting, 1, left);
  if (ready < 0 && errno != EINTR) throw errno_error("poll");
  if (ready == 0) throw PostgresError("PostgreSQL at " + place() + " does not answer any more", "");
  if ((waiting.revents & (POLLIN | POLLHUP | POLLERR)) != 0 && PQconsumeInput(handle_.get()) != 1) {
    fail_broken("receive");
  }
}

PGresult* Connection::next_result() {
  while (PQisBusy(handle_.get()) != 0) wait(false);
  return PQgetResult(handle_.get());
}

// The results of `count` calls and of the sync after them.
std::vector<Rows> Connection::take(size_t count) {
  std::vector<Rows> results;
  std::string message, state;
  const auto note = [&](const Rows&, PGresult* result) {
    if (!message.empty()) return;
    const char* code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    state = code == nullptr ? "" : code;
    message = "PostgreSQL at " + place() + ": " + one_line(PQresultErrorMessage(result));
  };
  for (size_t i = 0; i <= count; ++i) {
    while (PGresult* result = next_result()) {
      Rows rows(result);
      const ExecStatusType status = PQresultStatus(result);
      if (status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE) note(rows, result);
      if (PQstatus(handle_.get()) == CONNECTION_BAD) {
        throw PostgresError(message.empty() ? "PostgreSQL at " + place() + ": the connection ended" : message, state);
      }
      if (status == PGRES_PIPELINE_SYNC) {
        if (!message.empty()) throw PostgresError(message, state);
        return results;
      }
      if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) results.push_back(std::move(rows));
    }
  }
  fail_broken("its answers are not those of the calls");
}

}  // namespace optserve::journal
