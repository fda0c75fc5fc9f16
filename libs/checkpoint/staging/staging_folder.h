// A folder that becomes visible as a whole or not at all: files are written to a hidden folder beside the target and
// flushed, and then the folder is renamed.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "checkpoint/io/output_file.h"
#include "checkpoint/staging/target_folder.h"

namespace optserve::checkpoint {

class StagingFolder {
 public:
  // Refuses a target that exists and a parent that does not. Throws Error when the environment fails.
  static Result<std::unique_ptr<StagingFolder>> create(const std::string& target);
  // Removes the folder and what is in it unless publish() succeeded.
  ~StagingFolder();
  StagingFolder(const StagingFolder&) = delete;
  StagingFolder& operator=(const StagingFolder&) = delete;

  // The folder must outlive the file.
  OutputFile new_file(const std::string& name);
  FileEntry write_file(const std::string& name, std::string_view text);
  // Every file must be finished. Refused if the target has appeared meanwhile; nothing is ever replaced.
  Status publish();

 private:
  explicit StagingFolder(TargetFolder target) : target_(std::move(target)) {}

  TargetFolder target_;
  std::string staging_name_;
  int staging_fd_ = -1;
  bool published_ = false;
  WriteQueues queues_;
};

}  // namespace optserve::checkpoint
