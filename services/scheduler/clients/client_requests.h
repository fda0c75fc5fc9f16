// The requests of clients: to submit, follow, cancel and look up jobs. Open jobs are looked up in memory; the store is
// asked for a result that is not in memory.
#pragma once

#include "scheduler/clients/followers.h"
#include "scheduler/queue/admission.h"

namespace optserve::scheduler {

class ClientRequests {
 public:
  ClientRequests(SchedulerTables& tables, Admission& admission, Endings& endings, Followers& followers)
      : tables_(tables), admission_(admission), endings_(endings), followers_(followers) {}

  void on(const transport::Peer& from, protocol::Submit message, Instant now, transport::Outbox& out);
  void on(const transport::Peer& from, const protocol::Attach& message, Instant now, transport::Outbox& out);
  void on(const transport::Peer& from, const protocol::Cancel& message, Instant now, transport::Outbox& out);
  void on(const transport::Peer& from, const protocol::GetJob& message, Instant now, transport::Outbox& out);
  void on(const transport::Peer& from, const protocol::Credit& message, Instant now, transport::Outbox& out);
  // The store's answer about a result.
  void on_answer(const StoreQuestion& asker, const AskedResult& what, journal::ResultFound answer,
                 transport::Outbox& out);
  // Clients that can receive again get what they missed.
  void resume_clients(Instant now, transport::Outbox& out);

 private:
  void find_result(const transport::Peer& from, uint64_t request, AskedResult asked, Instant now,
                   transport::Outbox& out);
  void send_result(const StoreQuestion& asker, const SharedResult& result, uint64_t after, transport::Outbox& out);

  SchedulerTables& tables_;
  Admission& admission_;
  Endings& endings_;
  Followers& followers_;
};

}  // namespace optserve::scheduler
