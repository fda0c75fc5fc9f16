#include <cstdio>

#include "base/check.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/commands/job_options.h"
#include "cli/text/result_text.h"

namespace optserve::cli {
namespace {

class SubmitCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command("submit", "Queue a job and print its id", selected);
    add_options(command, job_options_);
    add_options(command, connection_options_);
    command.add("json", json_, "Print a JSON object instead of the id");
    command.add_example("optserve submit \"Once upon a time\" --key story-1", "queue a job; repeating it is safe");
    command.add_example("optserve submit --prompt-file story.txt --max-new-tokens 200 --priority 9",
                        "ahead of the others");
    command.add_example("optserve submit \"Tonight\" --delay-ms 3600000 --group nightly", "an hour later, in a group");
  }

  int run(const Clock&) override {
    protocol::JobSpec job = make_job(job_options_, read_prompt(job_options_));
    Connection connection = Connection::open(connection_options_);
    job.model = connection.choose_model(job.model);
    const auto outcomes = value_or_fail(connection.client().submit({std::move(job)}));
    check_eq(outcomes.size(), size_t{1}, "outcomes of one job");
    const protocol::SubmitOutcome& outcome = outcomes.front();
    if (json_) {
      std::fputs(outcome_json(outcome).c_str(), stdout);
      return outcome.job ? kExitOk : kExitFailed;
    }
    if (!outcome.job) fail(refuse(outcome.error.value_or(ErrorCode::kInternal), outcome.message));
    std::printf("%s\n", outcome.job->hex().c_str());
    if (outcome.duplicate) std::fprintf(stderr, "optserve: a job with this key exists already; this is its id\n");
    return kExitOk;
  }

 private:
  JobOptions job_options_;
  ConnectionOptions connection_options_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_submit_command() { return std::make_unique<SubmitCommand>(); }

}  // namespace optserve::cli
