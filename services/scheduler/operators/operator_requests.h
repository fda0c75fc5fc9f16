// The requests of operators: holding and releasing queues, lists, groups, dead letters, purges and backups.
#pragma once

#include <deque>
#include <unordered_set>

#include "scheduler/operators/system_report.h"
#include "scheduler/queue/admission.h"

namespace optserve::scheduler {

class OperatorRequests {
 public:
  OperatorRequests(SchedulerTables& tables, Admission& admission, Preparation& preparation, Endings& endings,
                   const SystemReport& report)
      : tables_(tables), admission_(admission), preparation_(preparation), endings_(endings), report_(report) {}

  void on(const transport::Peer& from, const protocol::Control& message, Instant now, transport::Outbox& out);
  void on(const transport::Peer& from, const protocol::ListJobs& message, transport::Outbox& out);
  void on(const transport::Peer& from, const protocol::Requeue& message, transport::Outbox& out);
  void on(const transport::Peer& from, const protocol::Purge& message, transport::Outbox& out);
  void on(const transport::Peer& from, const protocol::GetGroup& message, transport::Outbox& out);
  void on(const transport::Peer& from, const protocol::Backup& message, transport::Outbox& out);

  // The store's answers, refusals apart: the caller passes those on, after on_refused().
  void on_answer(const StoreQuestion& asker, AskedList& what, journal::EndedListed answer, transport::Outbox& out);
  void on_answer(const StoreQuestion& asker, const AskedRequeue& what, journal::DeadFound answer, Instant now,
                 transport::Outbox& out);
  void on_answer(const StoreQuestion& asker, const journal::EndedPurged& answer, transport::Outbox& out);
  void on_answer(const StoreQuestion& asker, const journal::BackUpDone& answer, transport::Outbox& out);
  void on_refused(const AskedRequeue& what) { requeues_.erase(what.job); }

  // Does a bounded part of the work that takes more than one turn.
  void work(Instant now, transport::Outbox& out);

 private:
  // A group whose open jobs are being cancelled.
  struct GroupCancel {
    transport::Peer peer;
    protocol::GetGroup asked;
    uint64_t before_order = 0;  // jobs that came after the request are not meant
  };

  Status check_control(const protocol::Control& message) const;
  void on_scanned(JobScan scan, transport::Outbox& out);
  void send_group(const transport::Peer& to, const protocol::GetGroup& asked, transport::Outbox& out);
  void cancel_groups(Instant now, transport::Outbox& out);

  SchedulerTables& tables_;
  Admission& admission_;
  Preparation& preparation_;
  Endings& endings_;
  const SystemReport& report_;
  std::deque<GroupCancel> group_cancels_;
  std::unordered_set<JobId> requeues_;  // asked of the store
};

}  // namespace optserve::scheduler
