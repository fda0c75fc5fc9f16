// Which jobs are taken into the queue: new ones, those that the journal held at the start, and dead ones that are put
// back.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "scheduler/jobs/endings.h"
#include "scheduler/queue/preparation.h"
#include "scheduler/scheduler_tables.h"

namespace optserve::scheduler {

class Admission {
 public:
  Admission(SchedulerTables& tables, Endings& endings, Preparation& preparation)
      : tables_(tables), endings_(endings), preparation_(preparation) {}

  // Open jobs, keys and modes of the process before this one.
  void recover(journal::Recovery recovery);

  struct Answer {
    protocol::SubmitOutcome outcome;  // names the job, unless it was refused
    uint64_t after = 0;               // journal record that must be durable before the answer leaves
  };
  Answer admit(protocol::JobSpec spec, Instant now);

  // Whether there is room for a dead job. Asked when it is about to join: others may have taken the room since an
  // operator asked for it.
  Status check_put_back(const protocol::JobSpec& spec);
  // Into Stage::kAccepted; the caller answers, and then begins the job.
  Job& put_back(uint64_t dead_order, journal::Accepted record, Instant now);

 private:
  Status check_model(const protocol::JobSpec& spec, Instant now) const;
  Status check_folders(const protocol::JobSpec& spec) const;
  Status check_known_model(const protocol::JobSpec& spec, const protocol::ModelInfo& model) const;
  // A refusal, if there is no room.
  std::optional<protocol::SubmitOutcome> check_room(const protocol::JobSpec& spec, Instant now);
  std::optional<protocol::SubmitOutcome> check_quota(const protocol::JobSpec& spec, const ModelQueue& queue,
                                                     const TenantLoad& adds, Instant now);
  std::optional<protocol::SubmitOutcome> check_time(const protocol::JobSpec& spec, const ModelQueue& queue,
                                                    int64_t cost);
  protocol::SubmitOutcome busy(SchedulerMetrics::Busy why, const Refusal& refusal, int64_t retry_after_ms);
  static int64_t cost_of(const protocol::JobSpec& spec, const ModelQueue& queue);
  Job& accept(protocol::JobSpec spec, std::string encoded, std::string payload_sha256, Instant now);
  void recover(journal::OpenJob open);
  Job& add(std::unique_ptr<Job> owned);

  SchedulerTables& tables_;
  Endings& endings_;
  Preparation& preparation_;
};

}  // namespace optserve::scheduler
