#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/progress_line.h"
#include "base/shutdown.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "cli/commands/followed_job.h"
#include "cli/commands/job_options.h"
#include "cli/text/result_text.h"
#include "client/choices.h"

namespace optserve::cli {
namespace {

bool print(std::string_view text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
}

void print_stats(const protocol::JobResult& result) {
  const protocol::Timings& timings = result.timings;
  std::fprintf(stderr, "%s", result_summary(result).c_str());
  std::fprintf(stderr, "encode %lld ms, queue %lld ms, first token %lld ms, run %lld ms, total %lld ms\n",
               static_cast<long long>(timings.encode_ms), static_cast<long long>(timings.queue_ms),
               static_cast<long long>(timings.first_token_ms), static_cast<long long>(timings.run_ms),
               static_cast<long long>(timings.total_ms));
  if (timings.run_ms > 0) {
    std::fprintf(stderr, "%.1f tokens/s\n",
                 1000.0 * static_cast<double>(result.ids.size()) / static_cast<double>(timings.run_ms));
  }
}

std::string whole_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

// On a terminal, whatever follows the output begins on a new line, including the message of an exception.
class OutputLine {
 public:
  explicit OutputLine(bool is_wanted) : is_open_(is_wanted && isatty(STDOUT_FILENO) != 0) {}
  ~OutputLine() { end(); }
  OutputLine(const OutputLine&) = delete;
  OutputLine& operator=(const OutputLine&) = delete;
  void end() {
    if (std::exchange(is_open_, false)) print("\n");
  }

 private:
  bool is_open_;
};

class GenerateCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command =
        parser.add_command("generate", "Continue a text, and print the output while it is generated", selected);
    add_options(command, job_options_);
    add_options(command, connection_options_);
    add_patience_option(command, connection_options_);
    command.begin_group("Prompt and output");
    command.add("echo", echo_, "Print the prompt before the output");
    command.add("stats", stats_, "Print tokens and times to standard error at the end");
    command.add("n", n_, "Number of choices that are printed, with consecutive seeds").also({"num-return-sequences"});
    command.add("best-of", best_of_, "Number of choices that are made; the likeliest n of them are printed; 0: n");
    command.add("json", json_, "Print one JSON object at the end instead of the text");
    command.add_example("optserve generate \"The capital of France is\"", "greedy only with --temperature 0");
    command.add_example("optserve generate --prompt-file story.txt --max-new-tokens 200 --temperature 0.8 --top-p 0.95",
                        "a prompt from a file, drawn");
    command.add_example("optserve generate \"Q: Why?\" --stop \"Q:\" --n 3 --json", "three choices as JSON");
    command.add_example("optserve generate --help=beam", "only the options about beam search");
  }

  int run(const Clock&) override {
    const std::string prompt = read_prompt(job_options_);
    protocol::JobSpec job = make_job(job_options_, prompt);
    const bool has_choices = n_ != 1 || best_of_ != 0;
    if (has_choices) choices_of(job);  // what needs no scheduler is refused without one
    Connection connection = Connection::open(connection_options_);
    job.model = connection.choose_model(job.model);
    if (has_choices) return run_choices(connection.client(), job, prompt);
    if (echo_ && !json_) print(prompt);
    // The line would erase an echoed prompt.
    const bool is_waiting_shown = isatty(STDERR_FILENO) != 0 && !echo_;
    RewrittenLine line;
    const auto on_event = [&](std::string_view piece, const protocol::JobEvent& event) {
      const std::string waiting = is_waiting_shown ? waiting_text(event) : "";
      std::fputs((waiting.empty() ? line.erase() : line.show(waiting)).c_str(), stderr);
      return json_ || print(piece);
    };
    OutputLine output(!json_);
    FollowedJob followed(connection.client(), connection_options_.patience());
    const protocol::JobResult result = followed.run(std::move(job), on_event);
    std::fputs(line.erase().c_str(), stderr);
    output.end();
    if (json_) print(result_json(result));
    if (stats_) {
      print_stats(result);
    } else if (exit_status_of(result) != 0) {
      std::fprintf(stderr, "optserve: %s", result_summary(result).c_str());
    }
    return shutdown_requested() ? kExitInterrupted : exit_status_of(result);
  }

 private:
  std::vector<protocol::JobSpec> choices_of(const protocol::JobSpec& job) const {
    return value_or_fail(client::choice_jobs(job, n_, best_of_ == 0 ? n_ : best_of_));
  }
  // Prints the choices one after the other at the end, because their streams would mix.
  int run_choices(Client& client, const protocol::JobSpec& job, const std::string& prompt) {
    const auto jobs = choices_of(job);
    FollowedJob followed(client, connection_options_.patience());
    const auto ended = followed.run_all(jobs, [](std::string_view, const protocol::JobEvent&) { return true; });
    const auto results = client::best_choices(ended, n_);
    int status = shutdown_requested() ? kExitInterrupted : kExitOk;
    if (json_) print("{\"choices\": [");
    for (size_t i = 0; i < results.size(); ++i) {
      if (json_) {
        print((i > 0 ? ", " : "") + whole_line(result_json(results[i])));
      } else {
        print("--- " + std::to_string(i + 1) + "\n" + (echo_ ? prompt : "") + results[i].text + "\n");
      }
      if (stats_) print_stats(results[i]);
      status = std::max(status, exit_status_of(results[i]));
    }
    if (json_) print("]}\n");
    return status;
  }

  JobOptions job_options_;
  ConnectionOptions connection_options_;
  bool echo_ = false;
  bool stats_ = false;
  bool json_ = false;
  int n_ = 1;
  int best_of_ = 0;
};

}  // namespace

std::unique_ptr<Command> make_generate_command() { return std::make_unique<GenerateCommand>(); }

}  // namespace optserve::cli
