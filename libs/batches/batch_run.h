// A run over the lines of a batch: which jobs are to be submitted, and what each line is answered with. Pure but for
// its files: no sockets, no threads, no time of its own.
//
// A line that fails for a reason that passes (no scheduler, a full queue, no worker of its model, its time was over
// before its turn) is tried again; the same attempt has the same keys, so that a line whose answer was lost is not
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
  size_t open_jobs_max = 256;  // that are submitted and not answered
  // Of a line. What a full queue or an unreachable scheduler refuses counts as none: it waits for them.
  int attempts_max = 8;
  // How long lines wait for a model that no scheduler knows; then they fail at once, until it is known again.
  Duration unknown_model_max = seconds(120);
  Duration wait_first = seconds(1), wait_max = seconds(30);  // between two attempts
};

class BatchRun {
 public:
  // `reader` is at the beginning of the input. The references outlive the run.
  BatchRun(const LineContext& context, const RunLimits& limits, LineReader& reader, OutcomeFiles& files);
  BatchRun(const BatchRun&) = delete;
  BatchRun& operator=(const BatchRun&) = delete;

  // One attempt at one line. What comes of it is told with its ticket.
  struct Work {
    uint64_t ticket = 0;
    std::vector<protocol::JobSpec> jobs;
  };
  // What is to be submitted now; none if enough is open, or everything is read. Answers lines that need no job.
  std::optional<Work> next(Instant now);
  // When next() has something although nothing happens before; nullopt: never.
  std::optional<Instant> wakes_at() const;

  // The answer to the submission of a ticket's jobs.
  void on_submitted(uint64_t ticket, const Result<std::vector<protocol::SubmitOutcome>>& outcomes, Instant now);
  // A job of the ticket has ended. May come before on_submitted().
  void on_finished(uint64_t ticket, const protocol::JobResult& result, Instant now);
  // The jobs of the ticket can no longer be followed.
  void on_lost(uint64_t ticket, const Refusal& why, Instant now);

  // Nothing is submitted any more, and what is open is given up. With a reason, all lines that are not answered are
  // answered with it as their error, by next(). Returns the jobs that may be cancelled.
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
  // Why the last line that was put off has to wait; empty: none was.
  const std::string& last_trouble() const { return last_trouble_; }

 private:
  struct Attempt {
    Line line;
    int number = 1;                                  // which attempt it is: part of the keys
    int attempts = 0;                                // that have failed
    int put_offs = 0;                                // waits since the line was read
    bool is_submitted = false;                       // on_submitted() has come
    std::map<JobId, std::vector<size_t>> indices{};  // equal keys can make several of a line's jobs one
    std::vector<std::optional<protocol::JobResult>> results{};
    std::vector<protocol::JobResult> early{};  // that came before on_submitted()
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
  // Tries the line again later, or answers it with the error if that has been done often enough.
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
    std::string code, message;  // of the lines that are left; empty: they are not answered
  };
  std::optional<GivenUp> given_up_;
  Counts counts_;
  std::string last_trouble_;
  std::map<std::string, Instant> unknown_models_;  // since when
};

}  // namespace optserve::batches
