#include "cli/commands/filter_options.h"

#include "cli/commands/connection.h"
#include "cli/commands/exit_status.h"
#include "cli/text/operator_text.h"

namespace optserve::cli {

void add_options(ConfigParser& parser, FilterOptions& options) {
  parser.add("state", options.state, "queued, running, succeeded, failed, cancelled, expired or dead");
  parser.add("tenant", options.tenant, "Only this tenant's jobs");
  parser.add("model", options.model, "Only jobs of this model");
  parser.add("group", options.group, "Only jobs of this group");
}

protocol::JobFilter make_filter(const FilterOptions& options) {
  protocol::JobFilter filter;
  if (!options.state.empty()) {
    filter.state = parse_job_state(options.state);
    if (!filter.state)
      throw CommandFailure{kExitUsage,
                           "state: expected queued, running, succeeded, failed, cancelled, expired or dead, found '" +
                               options.state + "'"};
  }
  if (!options.tenant.empty()) filter.tenant = options.tenant;
  filter.model = options.model;
  filter.group = options.group;
  return filter;
}

}  // namespace optserve::cli
