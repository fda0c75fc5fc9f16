#include "base/build_info.h"

#include <sys/utsname.h>
#include <unistd.h>

namespace optserve {

std::string_view build_version() { return OPTSERVE_VERSION; }

std::string host_and_pid() {
  utsname names{};
  const bool known = uname(&names) == 0;
  return (known ? std::string(names.nodename) : "host") + ":" + std::to_string(getpid());
}

}  // namespace optserve
