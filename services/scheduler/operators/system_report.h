// The state of the system, for GetStatus and in gauges.
#pragma once

#include <string>
#include <vector>

#include "scheduler/jobs/endings.h"
#include "scheduler/scheduler_tables.h"

namespace optserve::scheduler {

class SystemReport {
 public:
  SystemReport(SchedulerTables& tables, const Endings& endings) : tables_(tables), endings_(endings) {}

  protocol::SystemStatus status(uint64_t request, Instant now) const;
  // Of models that a service serves or served, that are configured, held, or had jobs; in order.
  std::vector<std::string> known_models() const;
  void update_gauges(Instant now);

 private:
  std::vector<protocol::ModelStatus> model_statuses() const;
  void update_services(Instant now);
  void update_tenants();

  SchedulerTables& tables_;
  const Endings& endings_;
  Instant next_look_{};  // at the services, which may be thousands
};

}  // namespace optserve::scheduler
