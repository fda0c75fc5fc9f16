// A new folder in the system's temporary folder, removed with everything in it at the end of the scope.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <string>

#include "base/error.h"

namespace optserve::cli {

class ScratchFolder {
 public:
  // Throws Error.
  ScratchFolder() : path_((std::filesystem::temp_directory_path() / "optserve-XXXXXX").string()) {
    if (mkdtemp(path_.data()) == nullptr) throw errno_error("mkdtemp " + path_);
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace optserve::cli
