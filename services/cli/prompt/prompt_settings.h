// What /set changes: options of `optserve generate`, with its names and checks.
#pragma once

#include <string>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "cli/commands/job_options.h"

namespace optserve::cli {

class PromptSettings {
 public:
  PromptSettings();
  PromptSettings(const PromptSettings&) = delete;
  PromptSettings& operator=(const PromptSettings&) = delete;

  // The options that the command line of `optserve prompt` sets as well.
  JobOptions& options() { return options_; }

  // Several values for an option that is repeatable, one for the others; no value: back to the default. A refusal
  // changes nothing.
  Status set(const std::string& name, const std::vector<std::string>& values);
  // One line for each option.
  std::string text() const;
  Result<protocol::JobSpec> job(const std::string& prompt) const;

 private:
  JobOptions options_;
  ConfigParser parser_;  // of the variables in options_
};

}  // namespace optserve::cli
