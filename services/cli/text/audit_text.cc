#include "cli/text/audit_text.h"

#include <nlohmann/json.hpp>

#include "cli/text/text_table.h"

namespace optserve::cli {
namespace {

std::string who(const audit::Record& record) {
  if (record.key.empty() && record.peer.empty()) return "-";
  if (record.key.empty()) return record.peer;
  return record.peer.empty() ? record.key : record.key + " at " + record.peer;
}

std::string came_of_it(const audit::Record& record) {
  std::string text(audit::outcome_name(record.outcome));
  if (!record.reason.empty()) text += ": " + record.reason;
  if (record.left_out > 0) text += " (and " + std::to_string(record.left_out) + " attempts before it)";
  return text;
}

}  // namespace

std::string audit_table(const audit::Listing& listing) {
  std::vector<TextRow> rows = {{"TIME (UTC)", "WHO", "ACTION", "OBJECT", "OUTCOME"}};
  for (const audit::Record& record : listing.records) {
    rows.push_back({audit::time_text(record.wall_ms), audit::shown(who(record)), audit::shown(record.action),
                    audit::shown(record.object), audit::shown(came_of_it(record))});
  }
  return text_table(rows);
}

std::string audit_json(const audit::Listing& listing) {
  nlohmann::ordered_json records = nlohmann::ordered_json::array();
  for (const audit::Record& record : listing.records) records.push_back(nlohmann::ordered_json::parse(line_of(record)));
  const nlohmann::ordered_json all = {{"records", std::move(records)}, {"unreadable", listing.unreadable}};
  constexpr int kOneLine = -1;
  constexpr bool kAsciiOnly = true;  // it may be read on a terminal too
  return all.dump(kOneLine, ' ', kAsciiOnly) + "\n";
}

}  // namespace optserve::cli
