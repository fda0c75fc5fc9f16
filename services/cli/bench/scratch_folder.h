// A new folder in the system's temporary folder, removed with everything in it at the end of the scope.
#pragma once

#include <string>

namespace optserve::cli {

class ScratchFolder {
 public:
  ScratchFolder();  // throws Error
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace optserve::cli
