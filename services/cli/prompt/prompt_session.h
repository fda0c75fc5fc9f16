// What `optserve prompt` knows between two lines: settings, prompts and answers. It reads and prints nothing itself.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/config.h"
#include "base/error.h"
#include "cli/commands/job_options.h"
#include "cli/prompt/prompt_input.h"
#include "cli/prompt/token_view.h"
#include "protocol/client_messages.h"

namespace optserve::cli {

// What /set changes: options of `optserve generate`, with its names and checks.
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

// What has to be done for an action.
struct PromptStep {
  std::string output{};                    // to be printed
  std::optional<protocol::JobSpec> job{};  // to be run; answered() takes its result
  std::string save_to{};                   // file for conversation()
  bool is_end = false;
};

class PromptSession {
 public:
  // `model`: for jobs while no other one is set.
  PromptSession(PromptSettings& settings, std::string model) : settings_(settings), model_(std::move(model)) {}

  // Refused: what was typed cannot be done; nothing has changed.
  Result<PromptStep> act(const PromptAction& action);

  // A piece of the answer, which may be empty, and how many tokens the answer has with it.
  void add_piece(std::string_view piece, size_t tokens) { tokens_.add(piece, tokens); }
  // The job of the last step has ended, or was given up with the text that had come. Returns what to print.
  std::string answered(const protocol::JobResult& result, bool in_colours);

  // Prompts and answers so far. Lines of prompts begin with ">>> ", further ones of a prompt with "... ".
  std::string conversation() const;

 private:
  struct Exchange {
    std::string prompt, answer;
  };
  Result<PromptStep> run(const std::string& prompt);
  Result<PromptStep> again();
  Result<PromptStep> go_on();
  Result<PromptStep> set(const std::string& name, const std::vector<std::string>& values);

  PromptSettings& settings_;
  std::string model_;
  std::vector<Exchange> exchanges_;
  Exchange running_;  // its answer: what the next text continues
  bool is_continuing_ = false;
  bool are_tokens_shown_ = false;
  TokenView tokens_;
};

}  // namespace optserve::cli
