#include "cli/stack/sibling_program.h"

#include <unistd.h>

#include <filesystem>

#include "base/error.h"

namespace optserve::cli {

std::string sibling_program(const std::string& name) {
  const std::filesystem::path path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
  if (access(path.c_str(), X_OK) != 0)
    throw Error("expected the program " + name + " beside this one: " + errno_error(path.string()).what());
  return path.string();
}

}  // namespace optserve::cli
