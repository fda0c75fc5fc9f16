// How a program is started in another network namespace, or with the preload library: by way of this program, as
// `chaos launch`, which enters and then becomes it.
#pragma once

#include <string>

#include "cli/stack/child_process.h"

namespace optserve::chaos {

struct Surroundings {
  std::string network;  // path of a network namespace; empty: the harness's own
  std::string shim;     // file of a ShimControl; empty: no preload library
};

cli::LaunchSpec launched(const cli::LaunchSpec& spec, const Surroundings& surroundings);
// What `chaos launch` does with its arguments. Returns only if it fails, with an exit status.
int become(const std::vector<std::string>& arguments);

}  // namespace optserve::chaos
