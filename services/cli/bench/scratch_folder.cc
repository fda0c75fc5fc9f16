#include "cli/bench/scratch_folder.h"

#include <stdlib.h>

#include <filesystem>

#include "base/error.h"

namespace optserve::cli {

ScratchFolder::ScratchFolder() : path_((std::filesystem::temp_directory_path() / "optserve-XXXXXX").string()) {
  if (mkdtemp(path_.data()) == nullptr) throw errno_error("mkdtemp " + path_);
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace optserve::cli
