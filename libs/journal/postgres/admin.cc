// What the command line does with a queue in PostgreSQL.
#include <algorithm>
#include <thread>

#include "base/program.h"
#include "journal/journal_storage.h"
#include "journal/postgres/connection.h"
#include "journal/postgres/reading.h"
#include "journal/postgres/schema.h"

namespace optserve::journal {
namespace {

constexpr seconds kAdminPatience{30};

}  // namespace

void init_queue(const std::string& url, const std::string& queue, const std::vector<std::string>& roles) {
  Connection connection(url, queue, kAdminPatience);
  if (schema_version(connection, queue) != 0) {
    if (roles.empty()) throw Error("the queue '" + queue + "' of " + connection.place() + " is there already");
    check_schema_version(connection, queue);
  } else {
    raise_schema(connection, queue, 0, schema_steps());
  }
  for (const std::string& role : roles) grant_use(connection, queue, role);
}

bool upgrade_queue(const std::string& url, const std::string& queue) {
  Connection connection(url, queue, kAdminPatience);
  const int64_t version = schema_version(connection, queue);
  const auto last = static_cast<int64_t>(schema_steps().size());
  if (version == 0 || version > last) check_schema_version(connection, queue);
  if (version == last) return false;
  raise_schema(connection, queue, version, schema_steps());
  return true;
}

JournalSummary inspect_queue(const std::string& url, const std::string& queue) {
  Connection connection(url, queue, kAdminPatience);
  check_schema_version(connection, queue);
  connection.set_patience(Duration::zero());
  // Reads the state of a single moment, since the queue may be at work.
  connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  JournalSummary summary;
  const Rows meta = connection.query(
      "SELECT version, term, next_seq, (SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c "
      "WHERE c.relnamespace = "
      "(SELECT relnamespace FROM pg_class WHERE oid = 'meta'::regclass) AND c.relkind = 'r') FROM meta");
  summary.schema_version = meta.number(0, 0);
  summary.term = static_cast<uint64_t>(meta.number(0, 1));
  summary.next_order = static_cast<uint64_t>(meta.number(0, 2));
  summary.bytes = meta.number(0, 3);
  const Rows leader = connection.query("SELECT holder, pid FROM leader");
  if (leader.size() == 1 && leader.number(0, 1) != 0) summary.holder = leader.text(0, 0);
  try {
    read_open_jobs(connection, [&](const OpenRow& row) {
      ++summary.open;
      const int64_t at = row.job.accepted.accepted_wall_ms;
      if (summary.oldest_open_wall_ms == 0) summary.oldest_open_wall_ms = at;
    });
    read_ended(connection, [&](const KnownKey& key, uint64_t) {
      ++summary.ended;
      if (key.state == protocol::JobState::kDead) ++summary.dead;
    });
    read_modes(connection);
  } catch (const DamagedError& damage) {
    summary.damage = damage.what();
  }
  return summary;
}

bool hand_over_queue(const std::string& url, const std::string& queue, Duration patience) {
  Connection connection(url, queue, kAdminPatience);
  check_schema_version(connection, queue);
  const Rows asked = connection.query("UPDATE leader SET hand_over = term WHERE pid <> 0 RETURNING term");
  if (asked.size() == 0) throw Error("no scheduler leads the queue '" + queue + "'");
  const SystemClock clock;
  for (const Instant end = clock.now() + patience; clock.now() < end;) {
    std::this_thread::sleep_for(milliseconds(20));
    const Rows now = connection.query("SELECT term, pid FROM leader");
    if (now.number(0, 0) > asked.number(0, 0) && now.number(0, 1) != 0) return true;
  }
  return false;
}

}  // namespace optserve::journal
