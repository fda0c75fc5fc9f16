// The job queue as a state machine. What must survive is in the JobStore; answers that promise something wait for it
// (Outbox::send_after).
//
// This class only routes: messages and time go to the collaborators below, each of which has a header of its own. They
// share the tables of scheduler_tables.h, and each names the others that it calls in its constructor. What can happen
// to a job, and which of them makes it happen, is in jobs/job_life.h.
#pragma once

#include "scheduler/clients/client_requests.h"
#include "scheduler/clients/followers.h"
#include "scheduler/jobs/endings.h"
#include "scheduler/leases/dispatcher.h"
#include "scheduler/leases/leases.h"
#include "scheduler/leases/registrations.h"
#include "scheduler/operators/audit_trail.h"
#include "scheduler/operators/operator_requests.h"
#include "scheduler/operators/system_report.h"
#include "scheduler/output/decoding.h"
#include "scheduler/output/token_intake.h"
#include "scheduler/queue/admission.h"
#include "scheduler/queue/places.h"
#include "scheduler/queue/preparation.h"
#include "scheduler/scheduler_tables.h"

namespace optserve::scheduler {

class SchedulerService final : public transport::Service {
 public:
  // Takes over what the journal recovered (term 1 and nothing else for a MemoryStore). `store` and `registry` outlive
  // the service.
  SchedulerService(SchedulerOptions options, journal::JobStore& store, journal::Recovery recovery,
                   metrics::Registry& registry);

  void on_message(const transport::Peer& from, protocol::Message message, Instant now, transport::Outbox& out) override;
  void on_undeliverable(const transport::Peer& to, protocol::Message message, bool slow, Instant now,
                        transport::Outbox& out) override;
  void on_expelled(const transport::Peer& peer, const std::string& why, Instant now, transport::Outbox& out) override;
  void on_ended(const transport::Peer& peer, Instant now, transport::Outbox& out) override;
  void on_tick(Instant now, transport::Outbox& out) override;
  void on_flush(Instant now, transport::Outbox& out) override;
  void begin_drain(Instant now, transport::Outbox& out) override;
  bool is_drained() const override;

  // From then on each message is checked against the key of its connection.
  void set_key_of(Access::KeyOf key_of) { tables_.access.set_key_of(std::move(key_of)); }
  // Gives other quotas of tenants once they have changed, else nullptr; asked ten times a second.
  using QuotaSource = std::function<std::shared_ptr<const keys::TenantQuotas>()>;
  void set_quota_source(QuotaSource source) { quota_source_ = std::move(source); }
  // From then on what operators do is written down.
  void set_audit(AuditTrail::Write write, AuditTrail::AddressOf sender_address) {
    audit_.set_write(std::move(write), std::move(sender_address));
  }
  // The store has answers to what it was asked.
  void on_answers(Instant now, transport::Outbox& out);
  // The process ends: leases that still run are given back, so that the next start does not count them as crashes.
  void give_back_leases() { leases_.give_back_all(); }

  // For tests and the simulation.
  const JobTable& jobs() const { return tables_.jobs; }
  const ServiceTable& services() const { return tables_.services; }
  const ModelQueues& queues() const { return tables_.queues; }
  const QueueBounds& bounds() const { return tables_.bounds; }
  const TenantLimits& tenants() const { return tables_.tenants; }

 private:
  void handle(const transport::Peer& from, protocol::Message message, Instant now, transport::Outbox& out);
  // Called before anything is looked up for a message. False: the message was refused.
  bool count_message(const transport::Peer& from, const protocol::Message& message, Instant now,
                     transport::Outbox& out);
  void refresh_quotas(Instant now);
  void take_answers(Instant now, transport::Outbox& out);
  // The one place where rights are enforced. Completes the message with the tenant that the key decides.
  Status check_access(const transport::Peer& from, protocol::Message& message, Instant now) const;
  Status check_job(const transport::Peer& from, const JobId& id, Instant now) const;
  void on_client_message(const transport::Peer& from, protocol::Message message, Instant now, transport::Outbox& out);
  void on_service_message(const transport::Peer& from, protocol::Message message, Instant now, transport::Outbox& out);
  void client_gone(const transport::Peer& peer);
  void not_taken_by_client(const transport::Peer& to, const protocol::Message& message, bool slow, Instant now);
  void not_taken_by_service(ServiceEntry& entry, const protocol::Message& message, Instant now);

  SchedulerTables tables_;
  Leases leases_{tables_};
  Endings endings_{tables_, leases_};
  Decoding decoding_{tables_, endings_};
  Preparation preparation_{tables_, endings_, decoding_};
  Dispatcher dispatcher_{tables_, leases_, endings_, preparation_};
  TokenIntake intake_{tables_, leases_, dispatcher_, decoding_, endings_};
  Registrations registrations_{tables_, leases_, dispatcher_, decoding_};
  Admission admission_{tables_, endings_, preparation_};
  Places places_{tables_};
  Followers followers_{tables_, endings_};
  ClientRequests requests_{tables_, admission_, endings_, followers_};
  SystemReport report_{tables_, endings_};
  OperatorRequests operators_{tables_, admission_, preparation_, endings_, report_};

  AuditTrail audit_{tables_};

  uint64_t durable_ = 0;  // as of the present turn, before the loop released what waited for it
  Instant next_sweep_{};
  QuotaSource quota_source_;
  Instant next_quotas_{};
};

}  // namespace optserve::scheduler
