// Who follows which job, and what becomes of a job that is to be cancelled when nobody follows it any more
// (OnDisconnect::kCancel). A peer that has vanished is noticed only when something is sent to it, so such jobs show a
// sign of life while they are followed.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "scheduler/jobs/endings.h"
#include "scheduler/scheduler_tables.h"

namespace optserve::scheduler {

class Followers {
 public:
  Followers(SchedulerTables& tables, Endings& endings) : tables_(tables), endings_(endings) {}

  // See ClientStreams::subscribe(). False: the job has too many followers.
  bool follow(Job& job, const std::shared_ptr<Client>& client, const StreamStart& start, Instant now);
  // Notices who has left, sends the signs of life that are due, and cancels jobs whose grace is over.
  void check(Instant now, transport::Outbox& out);

 private:
  using Times = std::multimap<Instant, JobId>;
  static std::vector<JobId> take_due(Times& times, Instant now);
  void watch(Job& job, Instant now);
  void note_left(Job& job, Instant now);

  SchedulerTables& tables_;
  Endings& endings_;
  Times signs_;  // when a job owes its followers a sign of life
  Times left_;   // when a job's grace may be over
};

}  // namespace optserve::scheduler
