// What one client process did and saw, as lines of a file. Each line is one write() with O_APPEND, so that a process
// that is killed leaves whole lines. Times are milliseconds of the monotonic clock, which all processes of a machine
// share.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/client_messages.h"

namespace optserve::chaos {

int64_t now_ms();

class LedgerWriter {
 public:
  explicit LedgerWriter(const std::string& path);  // appends; throws Error
  ~LedgerWriter();
  LedgerWriter(const LedgerWriter&) = delete;
  LedgerWriter& operator=(const LedgerWriter&) = delete;

  // May be called on any thread.
  void intend(uint64_t job) { line('I', job, ""); }
  void accept(uint64_t job, const JobId& id) { line('A', job, id.hex()); }
  void refuse(uint64_t job, ErrorCode code) { line('R', job, error_code_name(code)); }
  void no_answer(uint64_t job, ErrorCode code) { line('U', job, error_code_name(code)); }
  void conflict(uint64_t job, std::string_view outcome) { line('K', job, outcome); }
  void follow(uint64_t job, uint64_t from) { line('T', job, std::to_string(from)); }
  void piece(uint64_t job, uint64_t offset, std::string_view text);
  void finish(uint64_t job, const protocol::JobResult& result);
  void lose(uint64_t job, const Refusal& why);
  void ask_cancel(uint64_t job) { line('C', job, ""); }
  void cancelled(uint64_t job, protocol::JobState state) { line('c', job, protocol::job_state_name(state)); }

 private:
  void line(char kind, uint64_t job, std::string_view rest);

  int fd_;
};

struct Piece {
  int64_t at_ms = 0;
  uint64_t offset = 0;  // bytes of text before it
  std::string text;
};

struct Final {
  int64_t at_ms = 0;
  std::string state;  // job_state_name()
  int attempts = 0;
  int losses = 0;
  std::string text;
  std::string message;
};

// What a client received while it followed a job once, from an offset on.
struct Follow {
  uint64_t from = 0;
  std::vector<Piece> pieces;
  std::vector<Final> finals;  // more than one breaks a promise
  bool piece_after_final = false;
  std::string lost;  // why the stream was lost; empty if it was not
};

struct JobStory {
  int64_t intended_ms = 0;
  int64_t accepted_ms = 0;         // the first time
  std::vector<std::string> ids;    // one for each acceptance
  std::vector<std::string> codes;  // of refusals
  int no_answers = 0;
  std::vector<std::string> conflicts;  // outcomes of other payloads under the same key
  std::vector<Follow> follows;
  bool cancel_asked = false;
  std::vector<std::string> cancel_states;  // answers to cancel

  const Final* final() const;
  uint64_t received() const;  // bytes of text from the start up to the first gap
};

using Ledger = std::map<uint64_t, JobStory>;  // by job number

// Throws Error with the line that cannot be read. Without a file there are no jobs.
Ledger read_ledger(const std::string& path);

}  // namespace optserve::chaos
