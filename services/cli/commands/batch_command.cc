#include <unistd.h>

#include <cstdio>
#include <utility>

#include "base/progress_line.h"
#include "base/shutdown.h"
#include "base/time_left.h"
#include "batches/batch_run.h"
#include "batches/driver.h"
#include "cli/batch/batch_files.h"
#include "cli/commands/command.h"
#include "cli/commands/connection.h"
#include "client/async_client.h"
#include "http_api/chat/chat_template.h"
#include "model_text/served_model.h"

namespace optserve::cli {
namespace {

using batches::BatchRun;

constexpr milliseconds kStep{100};
constexpr seconds kFlushInterval{1};
constexpr milliseconds kTerminalInterval{200};
constexpr milliseconds kLogInterval{5'000};

// How far a batch is, as a line for a terminal or for a log.
class BatchProgress {
 public:
  explicit BatchProgress(Instant begin) : begin_(begin), is_terminal_(isatty(STDERR_FILENO) != 0) {}

  void show(const BatchRun& run, const batches::LineReader& input, Instant now) {
    const std::string left = time_left_.text(input.bytes_read(), input.bytes_total(), now);
    if (shown_at_ && now - *shown_at_ < (is_terminal_ ? kTerminalInterval : kLogInterval)) return;
    if (!is_terminal_ && !shown_at_) {
      shown_at_ = now;
      return;
    }
    shown_at_ = now;
    const BatchRun::Counts counts = run.counts();
    std::string text = facts(counts, now);
    if (input.bytes_total() > 0) {
      text += ", " + std::to_string(input.bytes_read() * 100 / input.bytes_total()) + "% read";
    }
    if (!left.empty()) text += ", " + left;
    if (counts.put_off > 0) text += "; " + std::to_string(counts.put_off) + " wait: " + run.last_trouble();
    std::fputs(is_terminal_ ? line_.show(text).c_str() : (text + "\n").c_str(), stderr);
  }
  void finish(const BatchRun& run, Instant now) {
    std::fprintf(stderr, "%s%s\n", line_.erase().c_str(), facts(run.counts(), now).c_str());
  }

 private:
  std::string facts(const BatchRun::Counts& counts, Instant now) const {
    const double elapsed = std::chrono::duration<double>(now - begin_).count();
    char speed[48] = "";
    if (elapsed > 0.1 && counts.completion_tokens > 0) {
      std::snprintf(speed, sizeof speed, ", %.0f tokens/s", static_cast<double>(counts.completion_tokens) / elapsed);
    }
    return std::to_string(counts.answered) + " lines answered, " + std::to_string(counts.failed) + " failed" + speed;
  }

  Instant begin_;
  bool is_terminal_;
  RewrittenLine line_;
  TimeLeft time_left_;
  std::optional<Instant> shown_at_;
};

class BatchCommand final : public Command {
 public:
  void declare(ConfigParser& parser) override {
    ConfigParser& command =
        parser.add_command("batch", "Answer a file of requests, line by line, into a file", selected);
    command.add_positional("input", paths_.input,
                           "File with a request in each line: in the form of OpenAI's batches, or with the fields of a "
                           "job, such as {\"prompt\": \"Once\", \"max_new_tokens\": 20}",
                           true);
    command.add_positional("output", paths_.answers, "File for the answers", true);
    command.add("errors", paths_.errors, "File for the lines that failed; by default OUTPUT.errors");
    command.add("model", model_, "Model of the lines that name none; by default the only one that is served");
    command.add("tenant", tenant_, "Whose share of the queue is used");
    command
        .add("vocabulary", vocabularies_,
             "NAME=FOLDER of a sharded checkpoint, whose vocabulary is needed for echo and log-probabilities in the "
             "form of OpenAI; repeatable")
        .separated_by_commas();
    command.add("chat-template", chat_template_,
                "How the messages of lines that are chats become a prompt: plain, or a file (docs/http_chat.md)");
    command.add("open-jobs", open_jobs_, "Most jobs in the queue at a time").range(1, 10'000);
    command.add("restart", restart_, "Forget the answers of an earlier run");
    command.add("json", json_, "Print a JSON object with the counts at the end");
    add_options(command, connection_);
    add_patience_option(command, connection_);
    command.add_example("optserve batch prompts.jsonl answers.jsonl", "answer a file; repeating the command goes on");
    command.add_example("optserve batch in.jsonl out.jsonl --open-jobs 1000 --tenant night",
                        "keep more jobs in the queue, in the share of a tenant");
    command.add_example("optserve batch in.jsonl out.jsonl --restart", "answer every line again");
  }

  int run(const Clock& clock) override {
    if (paths_.errors.empty()) paths_.errors = paths_.answers + ".errors";
    batches::LineReader reader(paths_.input, batches::kLineBytesMax);
    Connection connection = Connection::open(connection_);
    http_api::Models models(model_text::load_served_models(vocabularies_));
    BatchFiles files(paths_, restart_);
    batches::LineContext context{.models = models, .run = files.run(), .created = clock.wall_ms() / 1'000};
    std::optional<http_api::ChatTemplate> chat;
    if (!chat_template_.empty()) context.chat = &chat.emplace(http_api::ChatTemplate::load(chat_template_));
    context.caller.tenant = tenant_;
    context.default_model = connection.choose_model(model_);
    batches::OutcomeFiles outcomes(paths_.answers_part(), paths_.errors_part(), files.run());
    if (files.is_resumed()) {
      std::fprintf(stderr, "optserve: goes on after %llu lines\n",
                   static_cast<unsigned long long>(outcomes.num_answers() + outcomes.num_errors()));
    }
    BatchRun batch(context, {.open_jobs_max = static_cast<size_t>(open_jobs_)}, reader, outcomes);
    const int status = answer_all(batch, reader, outcomes, connection, clock);
    if (status != kExitOk) return status;
    const BatchRun::Counts counts = batch.counts();
    files.finish(counts.failed > 0);
    if (json_) {
      std::printf("{\"answered\": %llu, \"failed\": %llu, \"prompt_tokens\": %lld, \"completion_tokens\": %lld}\n",
                  static_cast<unsigned long long>(counts.answered), static_cast<unsigned long long>(counts.failed),
                  static_cast<long long>(counts.prompt_tokens), static_cast<long long>(counts.completion_tokens));
    }
    if (counts.failed == 0) return kExitOk;
    std::fprintf(stderr, "optserve: the errors are in %s\n", paths_.errors.c_str());
    return kExitFailed;
  }

 private:
  int answer_all(BatchRun& batch, const batches::LineReader& reader, batches::OutcomeFiles& outcomes,
                 const Connection& connection, const Clock& clock) {
    install_shutdown_signals();
    client::AsyncClient client(connection.client_options());
    batches::Driver driver(client, clock);
    driver.add(batch);
    BatchProgress progress(clock.now());
    Instant flushed = clock.now(), moved = clock.now();
    uint64_t ended = 0;
    while (!batch.is_over()) {
      driver.step(kStep);
      const Instant now = clock.now();
      if (now - flushed >= kFlushInterval) {
        outcomes.flush();
        flushed = now;
      }
      progress.show(batch, reader, now);
      const BatchRun::Counts counts = batch.counts();
      const bool waits_for_schedulers = counts.open == 0 && counts.put_off > 0;
      if (!waits_for_schedulers || counts.answered + counts.failed != ended) moved = now;
      ended = counts.answered + counts.failed;
      const bool is_stopped = shutdown_requested();
      if (!is_stopped && now - moved < connection_.patience()) continue;
      outcomes.flush();
      progress.finish(batch, now);
      std::fprintf(stderr, "optserve: %s; the same command goes on from here\n",
                   is_stopped ? "stopped" : batch.last_trouble().c_str());
      return is_stopped ? kExitInterrupted : kExitUnreachable;
    }
    outcomes.flush();
    progress.finish(batch, clock.now());
    return kExitOk;
  }

  BatchPaths paths_;
  ConnectionOptions connection_;
  std::string model_, tenant_, chat_template_;
  std::vector<std::string> vocabularies_;
  int open_jobs_ = 256;
  bool restart_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_batch_command() { return std::make_unique<BatchCommand>(); }

}  // namespace optserve::cli
