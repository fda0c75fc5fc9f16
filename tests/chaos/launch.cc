#include "launch.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "cli/stack/child_process.h"

namespace optserve::chaos {

cli::LaunchSpec launched(const cli::LaunchSpec& spec, const Surroundings& surroundings) {
  cli::LaunchSpec result = spec;
  result.program = "/proc/self/exe";
  const std::string preload = surroundings.shim.empty() ? "" : cli::sibling_program("libchaos_preload.so");
  result.arguments = {"launch", surroundings.network, surroundings.shim, preload, spec.program};
  result.arguments.insert(result.arguments.end(), spec.arguments.begin(), spec.arguments.end());
  return result;
}

int become(const std::vector<std::string>& arguments) {
  if (arguments.size() < 4) return 2;
  const std::string &network = arguments[0], &shim = arguments[1], &preload = arguments[2], &program = arguments[3];
  if (!network.empty()) {
    const int fd = open(network.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET) != 0) {
      std::perror(("enter " + network).c_str());
      return 127;
    }
  }
  if (!shim.empty()) {
    setenv("CHAOS_SHIM", shim.c_str(), 1);
    setenv("LD_PRELOAD", preload.c_str(), 1);
  }
  std::vector<char*> argv;
  for (size_t i = 3; i < arguments.size(); ++i) argv.push_back(const_cast<char*>(arguments[i].c_str()));
  argv.push_back(nullptr);
  execv(program.c_str(), argv.data());
  std::perror(program.c_str());
  return 127;
}

}  // namespace optserve::chaos
