// The options that say which jobs an operator means, shared by the subcommands of `optserve jobs`.
#pragma once

#include <string>

#include "base/config.h"
#include "protocol/operator_messages.h"

namespace optserve::cli {

struct FilterOptions {
  std::string state;
  std::string tenant;
  std::string model;
  std::string group;
};
void add_options(ConfigParser& parser, FilterOptions& options);

// Throws CommandFailure (usage) if the state is none.
protocol::JobFilter make_filter(const FilterOptions& options);

}  // namespace optserve::cli
