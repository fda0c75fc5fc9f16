// What workers and converters say about the jobs that they hold. A message that contradicts the job ends the lease; a
// message under a lease that its sender does not hold is dropped.
#pragma once

#include "scheduler/leases/dispatcher.h"
#include "scheduler/output/decoding.h"

namespace optserve::scheduler {

class TokenIntake {
 public:
  TokenIntake(SchedulerTables& tables, Leases& leases, Dispatcher& dispatcher, Decoding& decoding, Endings& endings)
      : tables_(tables), leases_(leases), dispatcher_(dispatcher), decoding_(decoding), endings_(endings) {}

  void on(ServiceEntry& from, const protocol::Tokens& message, Instant now, transport::Outbox& out);
  void on(ServiceEntry& from, const protocol::PromptLogprobs& message, Instant now);
  void on(ServiceEntry& from, protocol::Hypotheses message, Instant now);
  void on(ServiceEntry& from, const protocol::ConvertProgress& message, Instant now);

 private:
  // The job that the message is about, and a sign of life of its sender; nullptr: the sender does not hold it.
  Job* worked_on(ServiceEntry& from, uint64_t term, uint64_t lease, Instant now);
  struct Token {
    const protocol::Tokens& message;
    size_t index;
    SchedulerMetrics::OfModel& model;
  };
  void take_token(ServiceEntry& from, Job& job, const Token& token, Instant now);
  static void note_time(JobTimes& times, SchedulerMetrics::OfModel& model, Instant now);
  // The last token is there: the lease ends, and the text remains to be asked for.
  void take_end(Job& job, sampling::FinishReason reason, Instant now);
  void save_progress(Job& job, Instant now);

  SchedulerTables& tables_;
  Leases& leases_;
  Dispatcher& dispatcher_;
  Decoding& decoding_;
  Endings& endings_;
};

}  // namespace optserve::scheduler
