#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <set>
#include <utility>

#include "base/progress_line.h"
#include "base/shutdown.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/commands/followed_job.h"
#include "cli/prompt/input_lines.h"
#include "cli/prompt/prompt_session.h"
#include "cli/text/result_text.h"

namespace optserve::cli {
namespace {

std::string default_history_file() {
  const std::string state = environment_variable("XDG_STATE_HOME");
  if (!state.empty()) return state + "/optserve/history";
  const std::string home = environment_variable("HOME");
  return home.empty() ? "" : home + "/.local/state/optserve/history";
}

bool write_out(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
}

class PromptCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command = parser.add_command(
        "prompt", "Continue one text after the other: a prompt to type at, or lines from a pipe", selected);
    add_generation_options(command, settings_.options());
    command.add("history", history_file_, "File with the lines that were typed; by default it is in $XDG_STATE_HOME");
    add_options(command, connection_options_);
    add_patience_option(command, connection_options_);
    command.add_example("optserve prompt --max-new-tokens 64", "type prompts; /help lists the commands");
    command.add_example("optserve prompt --temperature 0 < prompts.txt", "continue each line of a file");
    command.add_example("printf '/set top-p 0.9\\nOnce upon a time\\n/again\\n' | optserve prompt",
                        "two continuations of one text");
  }

  int run(const Clock&) override {
    if (const auto job = settings_.job("any prompt"); !job.ok()) {
      throw CommandFailure{kExitFailed, job.refusal().message};
    }
    Connection connection = Connection::open(connection_options_);
    PromptSession session(settings_, connection.choose_model(settings_.options().model));
    install_shutdown_signals();
    is_terminal_ = isatty(STDIN_FILENO) != 0;
    is_coloured_ = isatty(STDOUT_FILENO) != 0 && environment_variable("NO_COLOR").empty();
    const auto lines = is_terminal_ ? lines_of_terminal(history_file_.empty() ? default_history_file() : history_file_)
                                    : lines_of_pipe();
    if (is_terminal_) std::fputs("/help lists the commands; Ctrl-D ends.\n", stderr);
    PromptInput input;
    std::string line;
    while (true) {
      const LineOutcome outcome = lines->read(line, input.is_open());
      if (outcome == LineOutcome::kInterrupted) {
        if (!goes_on_after_interrupt()) return kExitInterrupted;
        input.clear();
        continue;
      }
      const auto action = outcome == LineOutcome::kEnd ? input.end() : input.add_line(line);
      bool is_end = outcome == LineOutcome::kEnd;
      if (!action.ok()) {
        complain(action.refusal().message, kExitFailed);
      } else if (action.value()) {
        is_end = act(connection.client(), session, *action.value()) || is_end;
      }
      if (shutdown_requested() && !goes_on_after_interrupt()) return kExitInterrupted;
      if (is_end) return is_terminal_ ? kExitOk : exit_status_;
    }
  }

 private:
  // Ctrl-C at a terminal ends an answer or clears a line; SIGTERM, and any signal beside a pipe, end the program.
  bool goes_on_after_interrupt() const {
    if (!is_terminal_) return false;
    forget_interrupts();
    return !shutdown_requested();
  }

  void complain(const std::string& message, int exit_status) {
    std::fprintf(stderr, "optserve: %s\n", message.c_str());
    exit_status_ = std::max(exit_status_, exit_status);
  }

  // Whether the loop ends.
  bool act(Client& client, PromptSession& session, const PromptAction& action) {
    const Result<PromptStep> step = session.act(action);
    if (!step.ok()) {
      complain(step.refusal().message, kExitFailed);
      return false;
    }
    std::fputs(step.value().output.c_str(), is_terminal_ || !step.value().job ? stdout : stderr);
    std::fflush(stdout);
    if (!step.value().save_to.empty()) save(step.value().save_to, session.conversation());
    if (step.value().job) return !answer(client, session, *step.value().job);
    return step.value().is_end;
  }

  // False: nobody can read the output.
  bool answer(Client& client, PromptSession& session, protocol::JobSpec job) {
    const bool is_waiting_shown = is_terminal_ && isatty(STDERR_FILENO) != 0;
    RewrittenLine waiting_line;
    std::string text;
    bool is_readable = true;
    const auto on_event = [&](std::string_view piece, const protocol::JobEvent& event) {
      const std::string waiting = is_waiting_shown ? waiting_text(event) : "";
      std::fputs((waiting.empty() ? waiting_line.erase() : waiting_line.show(waiting)).c_str(), stderr);
      session.add_piece(piece, event.tokens);
      text += piece;
      is_readable = write_out(piece);
      return is_readable;
    };
    protocol::JobResult result;
    try {
      result = FollowedJob(client, connection_options_.patience()).run(std::move(job), on_event);
      std::fputs(waiting_line.erase().c_str(), stderr);
      if (!is_readable) return false;
      // FollowedJob has already reported, on a line of its own, a job that was cancelled here.
      const bool is_cancelled_here = shutdown_requested() && result.state == protocol::JobState::kCancelled;
      if (!text.ends_with('\n') && !(is_cancelled_here && is_terminal_)) write_out("\n");
      if (exit_status_of(result) != kExitOk && !is_cancelled_here) complain(failure_text(result), kExitFailed);
    } catch (const CommandFailure& failure) {
      std::fputs(waiting_line.erase().c_str(), stderr);
      if (!text.empty() && !text.ends_with('\n')) write_out("\n");
      complain(failure.message, failure.exit_status);
      result.text = text;
    }
    return write_out(session.answered(result, is_coloured_));
  }

  static std::string failure_text(const protocol::JobResult& result) {
    std::string text = result_summary(result);
    if (text.ends_with('\n')) text.pop_back();
    return text;
  }

  // Only files of this run are replaced.
  void save(const std::string& path, const std::string& text) {
    const int how = own_files_.contains(path) ? O_TRUNC : O_EXCL;
    const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | how, 0644);
    if (descriptor < 0) return complain(errno_error("cannot save to " + path).what(), kExitFailed);
    own_files_.insert(path);
    size_t written = 0;
    while (written < text.size()) {
      const ssize_t count = write(descriptor, text.data() + written, text.size() - written);
      if (count <= 0) break;
      written += static_cast<size_t>(count);
    }
    if (close(descriptor) != 0 || written < text.size()) {
      complain(errno_error("cannot save to " + path).what(), kExitFailed);
    }
  }

  PromptSettings settings_;
  ConnectionOptions connection_options_;
  std::string history_file_;
  std::set<std::string> own_files_;
  bool is_terminal_ = false;
  bool is_coloured_ = false;
  int exit_status_ = kExitOk;
};

}  // namespace

std::unique_ptr<Command> make_prompt_command() { return std::make_unique<PromptCommand>(); }

}  // namespace optserve::cli
