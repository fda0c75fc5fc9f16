// The tables of a queue in PostgreSQL. Each queue of a database has its own schema.
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

// Throws Error, which says what to do, unless the queue's tables have the version of the last step.
void check_schema_version(Connection& connection, const std::string& queue);
// The version that exists; 0 if there is none. Throws Error if the schema belongs to something else.
int64_t schema_version(Connection& connection, const std::string& queue);
// Migrates in one transaction from `version` to the last of the steps.
void raise_schema(Connection& connection, const std::string& queue, int64_t version, std::span<const SchemaStep> steps);
// Grants a scheduler's role what it needs and nothing more.
void grant_use(Connection& connection, const std::string& queue, const std::string& role);

// Identifies where the tables are: the server, its timeline, and the table itself. If this differs from before, the
// data may be older than what a scheduler wrote, as in a promoted replica, a restored backup or a copy.
std::string origin_of(Connection& connection);

}  // namespace optserve::journal
