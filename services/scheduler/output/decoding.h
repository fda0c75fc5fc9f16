// The text of a job: asks tokenizers for it as tokens come, and ends the job when it is complete.
#pragma once

#include "scheduler/jobs/endings.h"
#include "scheduler/scheduler_tables.h"

namespace optserve::scheduler {

class Decoding {
 public:
  Decoding(SchedulerTables& tables, Endings& endings) : tables_(tables), endings_(endings) {}

  // The job has more tokens, or all of them: asks for their text, unless a question of it is open already.
  void decode_more(Job& job, Instant now);
  void on(ServiceEntry& from, protocol::Decoded message, Instant now);
  // The job's question, of either kind, was not answered: asks it again, or fails the job after too many tries.
  // `counts`: the tokenizer may have choked on it.
  void ask_again(Job& job, bool counts, Instant now);

 private:
  void take_without_text(Job& job, Instant now);
  void on_decoded(const TokenizerPool::Answered& answered, protocol::DecodedItem item, Instant now);
  void complete(Job& job, Instant now);

  SchedulerTables& tables_;
  Endings& endings_;
};

}  // namespace optserve::scheduler
