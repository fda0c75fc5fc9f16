// A run over the lines of a batch: decides which jobs to submit and how each line is answered. Apart from its files it
// is pure: it has no sockets or threads and reads no clock.
//
// A line that fails for a temporary reason (no scheduler, a full queue, no worker for its model, a deadline that passed
// while it was queued) is tried again. The same attempt has the same keys, so that a line whose answer was lost is not
// computed twice.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "batches/line.h"
#include "batches/line_reader.h"
#include "batches/outcome_files.h"
#include "client/client_types.h"

namespace optserve::batches {

struct RunLimits {
  size_t open_jobs_max = 256;  // submitted but not yet answered
  // Attempts per line. Refusals by a full queue or an unreachable scheduler do not count: the line waits for these.
  int attempts_max = 8;
  // How long lines wait for a model that no scheduler knows. After that they fail at once, until the model is known
  // again.
  Duration unknown_model_max = seconds(120);
  Duration wait_first = seconds(1), wait_max = seconds(30);  // between two attempts
};

class BatchRun {
 public:
  // `reader` is at the beginning of the input. The references outlive the run.
  BatchRun(const LineContext& context, const RunLimits& limits, LineReader& reader, OutcomeFiles& files);
  BatchRun(const BatchRun&) = delete;
  BatchRun& operator=(const BatchRun&) = delete;

  // One attempt at one line. Its outcome is reported with its ticket.
  struct Work {
    uint64_t ticket = 0;
    std::vector<protocol::JobSpec> jobs;
  };
  // What to submit now; nullopt if enough jobs are open or all lines have been read. Answers lines that need no job.
  std::optional<Work> next(Instant now);
  // When next() will have something even if no event comes before; nullopt: never.
  std::optional<Instant> wakes_at() const;

  // The answer to the submission of a ticket's jobs.
  void on_submitted(uint64_t ticket, const Result<std::vector<protocol::SubmitOutcome>>& outcomes, Instant now);
  // A job of the ticket has ended. May be called before on_submitted().
  void on_finished(uint64_t ticket, const protocol::JobResult& result, Instant now);
  // The jobs of the ticket can no longer be followed.
  void on_lost(uint64_t ticket, const Refusal& why, Instant now);

  // Submits nothing more and gives up what is open. With a reason, next() answers all unanswered lines with it as their
  // error. Returns the jobs that may be cancelled.
  std::vector<JobId> give_up();
  std::vector<JobId> give_up(std::string code, std::string message);

  bool is_over() const { return is_at_end_ && open_.empty() && waiting_.empty(); }

  struct Counts {
    uint64_t answered = 0, failed = 0;                 // lines, those of earlier runs over the same files included
    int64_t prompt_tokens = 0, completion_tokens = 0;  // of this run's answers
    uint64_t open = 0;                                 // lines that wait for their jobs
    uint64_t put_off = 0;                              // lines that wait for another attempt
  };
  Counts counts() const;
  // Why the last line that was put off has to wait; empty if none was.
  const std::string& last_trouble() const { return last_trouble_; }

 private:
  struct Attempt {
    Line line;
    int number = 1;                                  // the number of the attempt, which is part of the keys
    int attempts = 0;                                // that have failed
    int put_offs = 0;                                // waits since the line was read
    bool is_submitted = false;                       // on_submitted() has come
    std::map<JobId, std::vector<size_t>> indices{};  // equal keys can make several of a line's jobs one
    std::vector<std::optional<protocol::JobResult>> results{};
    std::vector<protocol::JobResult> early{};  // results that came before on_submitted()
    size_t missing = 0;
  };
  struct Waiting {
    Instant until;
    Attempt attempt;
  };

  Work begin(Attempt attempt);
  std::optional<Line> read_line();
  void answer_without_jobs();
  void take(uint64_t ticket, Attempt& attempt, const protocol::JobResult& result, Instant now);
  void complete(uint64_t ticket, Attempt& attempt, Instant now);
  // Tries the line again later, or answers it with the error if it has been tried often enough.
  enum class Reason { kQueue, kLine, kExpired };
  static Reason reason_of(ErrorCode code);
  void put_off(uint64_t ticket, const http_api::ApiError& why, Reason reason, Instant now);
  void fail(uint64_t ticket, const http_api::ApiError& why);
  void close(uint64_t ticket);

  const LineContext context_;
  const RunLimits limits_;
  LineReader& reader_;
  OutcomeFiles& files_;
  std::map<uint64_t, Attempt> open_;  // by ticket
  std::vector<Waiting> waiting_;
  size_t open_jobs_ = 0;
  uint64_t last_ticket_ = 0;
  bool is_at_end_ = false;
  struct GivenUp {
    std::string code, message;  // the error of the remaining lines; empty: they are not answered
  };
  std::optional<GivenUp> given_up_;
  Counts counts_;
  std::string last_trouble_;
  std::map<std::string, Instant> unknown_models_;  // the time since which each has been unknown
};

}  // namespace optserve::batches
