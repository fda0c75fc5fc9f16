// The tables of a queue in PostgreSQL: a schema of its own for each queue of a database.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "journal/postgres/connection.h"

namespace optserve::journal {

// The statements that make a version out of the one before it.
struct SchemaStep {
  std::vector<std::string> statements;
};
std::span<const SchemaStep> schema_steps();

// Throws Error, with what to do, unless the queue's tables are those of the last step.
void check_schema_version(Connection& connection, const std::string& queue);
// The version that is there; 0: none. Throws Error if the schema is of something else.
int64_t schema_version(Connection& connection, const std::string& queue);
// One transaction from `version` to the last of the steps.
void raise_schema(Connection& connection, const std::string& queue, int64_t version, std::span<const SchemaStep> steps);
// What a scheduler's role needs and nothing more.
void grant_use(Connection& connection, const std::string& queue, const std::string& role);

// Where the tables are: the server, its timeline, and the table itself. Another value than before means that what is
// there may be older than what a scheduler wrote: a promoted replica, a restored backup, a copy.
std::string origin_of(Connection& connection);

}  // namespace optserve::journal
