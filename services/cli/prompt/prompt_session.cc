#include "cli/prompt/prompt_session.h"

#include <utility>

#include "base/input_check.h"
#include "cli/commands/command.h"
#include "cli/text/text_table.h"

namespace optserve::cli {
namespace {

Refusal no_answer_yet() { return refuse(ErrorCode::kBadRequest, "there is no prompt yet"); }

std::string quoted_prompt(const std::string& prompt) {
  std::string text = ">>> ";
  for (const char each : prompt) {
    text += each;
    if (each == '\n') text += "... ";
  }
  return text + "\n";
}

}  // namespace

PromptSettings::PromptSettings() : parser_("optserve prompt", "") { add_generation_options(parser_, options_); }

Status PromptSettings::set(const std::string& name, const std::vector<std::string>& values) {
  const JobOptions before = options_;
  Status status = parser_.set(name, values);
  if (status.ok()) {
    // Faults that only a complete job reveals, such as a value out of range or options that exclude each other.
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

Result<PromptStep> PromptSession::act(const PromptAction& action) {
  PromptStep step;
  switch (action.verb) {
    case PromptVerb::kPrompt:
      running_ = {action.text, ""};
      is_continuing_ = false;
      return run(action.text);
    case PromptVerb::kHelp:
      step.output = prompt_help();
      return step;
    case PromptVerb::kSet:
      return set(action.words[0], {action.words.begin() + 1, action.words.end()});
    case PromptVerb::kShow:
      step.output = settings_.text();
      return step;
    case PromptVerb::kSave:
      if (exchanges_.empty()) return no_answer_yet();
      step.save_to = action.words[0];
      return step;
    case PromptVerb::kAgain:
      return again();
    case PromptVerb::kSeed:
      return set("seed", action.words);
    case PromptVerb::kTokens:
      if (Status known = check_choice("/tokens", action.words[0], {"on", "off"}); !known.ok()) return known.refusal();
      are_tokens_shown_ = action.words[0] == "on";
      return step;
    case PromptVerb::kContinue:
      return go_on();
    case PromptVerb::kQuit:
      step.is_end = true;
      return step;
  }
  return step;
}

Result<PromptStep> PromptSession::set(const std::string& name, const std::vector<std::string>& values) {
  if (Status done = settings_.set(name, values); !done.ok()) return done.refusal();
  return PromptStep{};
}

Result<PromptStep> PromptSession::run(const std::string& prompt) {
  Result<protocol::JobSpec> job = settings_.job(prompt);
  if (!job.ok()) return job.refusal();
  PromptStep step;
  step.job = std::move(job).value();
  if (step.job->model.empty()) step.job->model = model_;
  if (are_tokens_shown_ && step.job->sampling.logprobs < 0) step.job->sampling.logprobs = 0;
  tokens_.clear();
  return step;
}

Result<PromptStep> PromptSession::again() {
  if (exchanges_.empty()) return no_answer_yet();
  const uint64_t seed = settings_.options().sampling.params.seed + 1;
  if (Status done = settings_.set("seed", {std::to_string(seed)}); !done.ok()) return done.refusal();
  running_ = {exchanges_.back().prompt, ""};
  is_continuing_ = false;
  Result<PromptStep> step = run(running_.prompt);
  if (!step.ok()) return step;
  PromptStep told = std::move(step).value();
  told.output = "seed " + std::to_string(seed) + "\n";
  if (told.job->sampling.is_greedy()) {
    told.output += "(the seed changes nothing while temperature is 0 or top-k is 1)\n";
  }
  return told;
}

Result<PromptStep> PromptSession::go_on() {
  if (exchanges_.empty()) return no_answer_yet();
  running_ = exchanges_.back();
  is_continuing_ = true;
  return run(running_.prompt + running_.answer);
}

std::string PromptSession::answered(const protocol::JobResult& result, bool in_colours) {
  Exchange ended = std::exchange(running_, {});
  ended.answer += result.text;
  if (std::exchange(is_continuing_, false)) {
    exchanges_.back() = std::move(ended);
  } else {
    exchanges_.push_back(std::move(ended));
  }
  return are_tokens_shown_ ? tokens_.show(result.text, result.logprobs, in_colours) : "";
}

std::string PromptSession::conversation() const {
  std::string text;
  for (const Exchange& each : exchanges_) {
    text += (text.empty() ? "" : "\n") + quoted_prompt(each.prompt) + each.answer;
    if (!text.ends_with('\n')) text += '\n';
  }
  return text;
}

}  // namespace optserve::cli
