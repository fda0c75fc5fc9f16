// The way of a job from its acceptance to the queue of its model: its client's delay, its prompt's ids, the checks that
// need them.
#pragma once

#include "scheduler/jobs/endings.h"
#include "scheduler/output/decoding.h"
#include "scheduler/scheduler_tables.h"

namespace optserve::scheduler {

// Why a job that needs text cannot be served by a model that serves token ids only.
Refusal no_text(const std::string& model);

class Preparation {
 public:
  Preparation(SchedulerTables& tables, Endings& endings, Decoding& decoding)
      : tables_(tables), endings_(endings), decoding_(decoding) {}

  // Of a job that was accepted, recovered or put back, or whose client's delay is over.
  void begin(Job& job, Instant now);
  void on(ServiceEntry& from, protocol::Encoded message, Instant now);
  // Of a job that is ready: into the queue of its model. If all of its tokens are there, only their text is asked for.
  void enqueue(Job& job, Instant now);
  void end_delays(Instant now);

 private:
  void on_encoded(Job& job, protocol::EncodedItem item, Instant now);

  SchedulerTables& tables_;
  Endings& endings_;
  Decoding& decoding_;
};

}  // namespace optserve::scheduler
