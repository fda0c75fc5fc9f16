#include <algorithm>
#include <cstdio>

#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/text/status_text.h"
#include "journal/journal.h"

namespace optserve::cli {
namespace {

using protocol::ControlAction;
using protocol::ControlScope;

constexpr seconds kHandOverWait{10};

class QueueCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command =
        parser.add_command("queue", "Pause, drain or resume the whole queue, one model or one service", selected);
    declare_part(command, "pause", "Accept jobs but start none; running jobs continue", pause_);
    declare_part(command, "drain", "Accept no jobs and finish those that were accepted", drain_);
    declare_part(command, "resume", "End a pause or a drain", resume_);
    declare_hand_over(command);
  }

  int run(const Clock&) override {
    if (hand_over_) return run_hand_over();
    if (!model_.empty() && !service_.empty()) {
      throw CommandFailure{kExitUsage, "--model and --service cannot be given together"};
    }
    const ControlAction action = pause_   ? ControlAction::kPause
                                 : drain_ ? ControlAction::kDrain
                                          : ControlAction::kResume;
    const ControlScope scope = !model_.empty()     ? ControlScope::kModel
                               : !service_.empty() ? ControlScope::kService
                                                   : ControlScope::kQueue;
    Connection connection = Connection::open(connection_options_);
    const auto answers = connection.client().control(action, scope, model_ + service_);
    if (!json_) {
      Answers<protocol::SystemStatus> done = answers;
      std::erase_if(done, [](const auto& one) { return !one.answer.ok(); });
      std::fputs(status_table(done).c_str(), stdout);
      return report_refusals(answers);
    }
    std::fputs(status_json(answers).c_str(), stdout);
    const bool all_done = std::ranges::all_of(answers, [](const auto& one) { return one.answer.ok(); });
    return all_done ? kExitOk : kExitFailed;
  }

 private:
  void declare_part(ConfigParser& command, const char* name, const char* help, bool& part) {
    ConfigParser& parser = command.add_command(name, help, part);
    add_options(parser, connection_options_);
    parser.add("model", model_, "Only this model's queue");
    parser.add("service", service_, "Only this tokenizer, worker or converter, by its name or instance");
    parser.add("json", json_, "Print the state afterwards as a JSON object");
    const std::string line = "optserve queue " + std::string(name);
    parser.add_example(line, "the whole queue");
    parser.add_example(line + " --model opt-125m", "one model");
    parser.add_example(line + " --service worker-0", "one worker, tokenizer or converter");
  }

  void declare_hand_over(ConfigParser& command) {
    ConfigParser& parser = command.add_command(
        "hand-over", "Have the scheduler that leads a queue in PostgreSQL give way to one that stands by", hand_over_);
    parser.add_positional("url", url_, "postgresql://USER@HOST/DATABASE, without a password", true);
    parser.add("queue", queue_, "The queue: a schema of the database");
    const std::string line = "optserve queue hand-over postgresql://optserve@db/optserve";
    parser.add_example(line, "before the leader's machine is restarted");
    parser.add_example(line + " --queue batch", "of one of several queues");
    parser.add_example(line + "?sslmode=verify-full", "over TLS, with the server's certificate checked");
  }

  int run_hand_over() const {
    journal::check_journal_url(url_);
    if (!journal::hand_over_queue(url_, queue_, kHandOverWait)) {
      throw CommandFailure{kExitFailed, "no scheduler took the queue '" + queue_ + "' over: none stands by"};
    }
    std::printf("another scheduler leads the queue '%s'\n", queue_.c_str());
    return kExitOk;
  }

  ConnectionOptions connection_options_;
  bool hand_over_ = false;
  std::string url_, queue_ = "optserve";
  bool pause_ = false, drain_ = false, resume_ = false;
  std::string model_, service_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_queue_command() { return std::make_unique<QueueCommand>(); }

}  // namespace optserve::cli
