#include "cli/prompt/prompt_settings.h"

#include "cli/commands/command.h"
#include "cli/text/text_table.h"

namespace optserve::cli {

PromptSettings::PromptSettings() : parser_("optserve prompt", "") { add_generation_options(parser_, options_); }

Status PromptSettings::set(const std::string& name, const std::vector<std::string>& values) {
  const JobOptions before = options_;
  Status status = parser_.set(name, values);
  if (status.ok()) {
    // What only a whole job shows, such as a range or options that exclude each other.
    const Result<protocol::JobSpec> checked = job("any prompt");
    if (!checked.ok()) status = checked.refusal();
  }
  if (!status.ok()) options_ = before;
  return status;
}

std::string PromptSettings::text() const {
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : parser_.effective()) rows.push_back({name, value});
  return text_table(rows);
}

Result<protocol::JobSpec> PromptSettings::job(const std::string& prompt) const {
  try {
    return make_job(options_, prompt);
  } catch (const CommandFailure& failure) {
    return refuse(ErrorCode::kBadRequest, failure.message);
  }
}

}  // namespace optserve::cli
