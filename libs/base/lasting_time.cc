#include "base/lasting_time.h"

#include <filesystem>
#include <fstream>

namespace optserve {

std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  if (id.empty()) return "";
  // Processes in a different time namespace count from a different moment. A system without them has no such link.
  std::error_code none;
  return id + ' ' + std::filesystem::read_symlink("/proc/self/ns/time", none).string();
}

}  // namespace optserve
