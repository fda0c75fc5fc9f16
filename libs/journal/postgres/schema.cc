#include "journal/postgres/schema.h"

#include "base/ids.h"
#include "base/program.h"

namespace optserve::journal {
namespace {

// Names are bytes instead of text, since they hold whatever a client may send and are only compared. An open job has
// rows in two tables: its request is written once and then removed, and the part that changes is small. Pages keep room
// for new versions of their rows, so that an update need not touch the indexes.
const std::vector<SchemaStep>& steps() {
  static const std::vector<SchemaStep> all = {{{
      "CREATE TABLE meta(one integer PRIMARY KEY CHECK(one = 1), id bytea NOT NULL, version bigint NOT NULL, "
      "term bigint NOT NULL, next_seq bigint NOT NULL, commits bigint NOT NULL, time_ms bigint NOT NULL, "
      "boot bytea NOT NULL, uptime_ms bigint NOT NULL, origin text NOT NULL) WITH (fillfactor = 10)",
      // The leader. `beat` changes while it lives; pid 0 means that it ended in order.
      "CREATE TABLE leader(one integer PRIMARY KEY CHECK(one = 1), term bigint NOT NULL, beat bigint NOT NULL, "
      "pid bigint NOT NULL, server text NOT NULL, holder bytea NOT NULL, "
      "hand_over bigint NOT NULL) WITH (fillfactor = 10)",
      "CREATE TABLE jobs(seq bigint PRIMARY KEY, id bytea NOT NULL, accepted_at_ms bigint NOT NULL, "
      "accepted_wall_ms bigint NOT NULL, sha256 bytea NOT NULL, crc bigint NOT NULL, spec_crc bigint NOT NULL, "
      "spec bytea NOT NULL) WITH (autovacuum_vacuum_scale_factor = 0.02)",
      "CREATE TABLE work(seq bigint PRIMARY KEY, attempts bigint NOT NULL, crashes bigint NOT NULL DEFAULT 0, "
      "lease_term bigint NOT NULL, lease bigint NOT NULL, crc bigint NOT NULL, losses bytea NOT NULL DEFAULT '', "
      "progress_crc bigint NOT NULL DEFAULT 0, progress bytea NOT NULL DEFAULT '') "
      "WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02)",
      "CREATE TABLE results(seq bigint PRIMARY KEY, id bytea NOT NULL, state bigint NOT NULL, "
      "expires_at_ms bigint NOT NULL, accepted_wall_ms bigint NOT NULL, tenant bytea NOT NULL, grp bytea NOT NULL, "
      "model bytea NOT NULL, key bytea NOT NULL, sha256 bytea NOT NULL, crc bigint NOT NULL, result bytea NOT NULL, "
      "spec_crc bigint NOT NULL, spec bytea NOT NULL) WITH (autovacuum_vacuum_scale_factor = 0.02)",
      "CREATE INDEX results_by_id ON results(id)",
      "CREATE INDEX results_by_expiry ON results(expires_at_ms)",
      "CREATE INDEX results_by_state ON results(state, seq)",
      "CREATE INDEX results_by_group ON results(tenant, grp, seq) WHERE grp <> ''",
      "CREATE TABLE modes(scope bigint NOT NULL, name bytea NOT NULL, mode bigint NOT NULL, crc bigint NOT NULL, "
      "PRIMARY KEY(scope, name))",
      "INSERT INTO leader VALUES(1, 0, 0, 0, '', '', 0)",
  }}};
  return all;
}

constexpr const char* kCommands = "optserve journal";

}  // namespace

std::span<const SchemaStep> schema_steps() { return steps(); }

int64_t schema_version(Connection& connection, const std::string& queue) {
  Values name;
  name.add(queue);
  const Rows found = connection.query(
      "SELECT to_regclass(quote_ident($1::text) || '.meta') IS NOT NULL, count(c.oid)::bigint FROM pg_namespace n "
      "LEFT JOIN pg_class c ON c.relnamespace = n.oid WHERE n.nspname = $1::text",
      name);
  if (found.number(0, 1) == 0) return 0;
  if (found.number(0, 0) == 0) {
    throw Error("the schema '" + queue + "' of " + connection.place() +
                " holds tables of something else: name another queue (--journal-queue)");
  }
  const Rows rows = connection.query("SELECT version FROM " + quoted_queue(queue) + ".meta");
  if (rows.size() != 1) throw Error("the journal '" + queue + "' has lost its row of terms: restore its backup");
  return rows.number(0, 0);
}

void check_schema_version(Connection& connection, const std::string& queue) {
  const int64_t version = schema_version(connection, queue);
  const auto last = static_cast<int64_t>(steps().size());
  if (version == last) return;
  const std::string where = "the database " + connection.place();
  if (version == 0) {
    throw ConfigurationError(where + " has no queue '" + queue + "': '" + kCommands + " init URL --queue " + queue +
                             "' makes it");
  }
  if (version < last) {
    throw ConfigurationError("the queue '" + queue + "' of " + where + " is of version " + std::to_string(version) +
                             ", this program's is " + std::to_string(last) + ": stop its schedulers, then '" +
                             kCommands + " upgrade URL --queue " + queue + "' raises it");
  }
  throw ConfigurationError("the queue '" + queue + "' of " + where + " is of version " + std::to_string(version) +
                           ", made by a later program; this one knows " + std::to_string(last));
}

void raise_schema(Connection& connection, const std::string& queue, int64_t version, std::span<const SchemaStep> all) {
  std::vector<Call> calls;
  calls.push_back({nullptr, "BEGIN", {}});
  if (version == 0) calls.push_back({nullptr, "CREATE SCHEMA IF NOT EXISTS " + quoted_queue(queue), {}});
  for (auto step = static_cast<size_t>(version); step < all.size(); ++step) {
    for (const std::string& statement : all[step].statements) calls.push_back({nullptr, statement, {}});
  }
  Values values;
  values.add(static_cast<int64_t>(all.size()));
  if (version == 0) {
    const Id128 id = Id128::random();
    values.add(std::string_view(reinterpret_cast<const char*>(id.bytes.data()), id.bytes.size()));
    calls.push_back(
        {nullptr, "INSERT INTO meta VALUES(1, $2::bytea, $1::bigint, 0, 1, 0, 0, '', 0, '')", std::move(values)});
  } else {
    calls.push_back({nullptr, "UPDATE meta SET version = $1::bigint", std::move(values)});
  }
  calls.push_back({nullptr, "COMMIT", {}});
  connection.run(calls);
}

void grant_use(Connection& connection, const std::string& queue, const std::string& role) {
  Values name;
  name.add(role);
  const std::string quoted = connection.query("SELECT quote_ident($1::text)", name).text(0, 0);
  const std::string schema = quoted_queue(queue);
  const std::string grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON ";
  const Call calls[] = {{nullptr, "BEGIN", {}},
                        {nullptr, "GRANT USAGE ON SCHEMA " + schema + " TO " + quoted, {}},
                        {nullptr, "GRANT SELECT, UPDATE ON meta, leader TO " + quoted, {}},
                        {nullptr, grant + "jobs, work, results, modes TO " + quoted, {}},
                        {nullptr, "COMMIT", {}}};
  connection.run(calls);
}

std::string origin_of(Connection& connection) {
  // The name of the file of a log position begins with the timeline.
  return connection
      .query(
          "SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()), "
          "left(pg_walfile_name(pg_current_wal_lsn()), 8), 'meta'::regclass::oid, pg_relation_filenode('meta'))")
      .text(0, 0);
}

}  // namespace optserve::journal
