// What a reader process is started for, and its command line.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "conversion/command_options.h"

namespace optserve::converter {

struct ReadJob {
  std::string input;      // folder, file, glob, or Metaseq's virtual X.pt
  std::string name;       // of the model
  int64_t num_heads = 0;  // 0: as the files say
  conversion::OutputHead head = conversion::OutputHead::kAuto;
  std::string vocab_file{};  // both empty: searched beside the input
  std::string merges_file{};
  conversion::PromptTokens prompt_tokens = conversion::PromptTokens::kAdded;
  bool for_inspection = false;  // list the foreign tensors, and say why it cannot be converted
};

// The command line of a job, and the job of a command line; nullopt for arguments that to_arguments() does not write.
std::vector<std::string> to_arguments(const ReadJob& job);
std::optional<ReadJob> parse_read_job(std::span<const char* const> arguments);

}  // namespace optserve::converter
