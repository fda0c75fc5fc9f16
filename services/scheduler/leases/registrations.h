// Registers services, follows their signs of life, and notices when they go.
#pragma once

#include <string>

#include "scheduler/leases/dispatcher.h"
#include "scheduler/output/decoding.h"

namespace optserve::scheduler {

class Registrations {
 public:
  Registrations(SchedulerTables& tables, Leases& leases, Dispatcher& dispatcher, Decoding& decoding)
      : tables_(tables), leases_(leases), dispatcher_(dispatcher), decoding_(decoding) {}

  void on(const transport::Peer& from, protocol::Register message, Instant now, transport::Outbox& out);
  void on(ServiceEntry& from, const protocol::Heartbeat& message, Instant now, transport::Outbox& out);
  void on(ServiceEntry& from, const protocol::Goodbye& message, Instant now);
  // Its process has ended, or only its connection has. It gets no more work, and is lost unless it soon registers on
  // another connection.
  void connection_ended(ServiceEntry& entry, Instant now);
  // Its leases are lost, its questions are asked again, and it is forgotten.
  void lose(ServiceEntry& entry, const std::string& why, Instant now);
  // Ends the session of a service, and forgets the service.
  void remove(ServiceEntry& entry, const std::string& why, Instant now);
  // Loses services that have been silent, or stuck, for too long.
  void lose_dead(Instant now);

 private:
  // Ends everything that depends on the service's present connection.
  void end_session(ServiceEntry& entry, const std::string& why, bool counts, Instant now);
  // When the service is lost if it stays away.
  Instant lost_at(const ServiceEntry& entry) const;
  void lose_away(ServiceEntry& entry, Instant now);
  // The entry of a service that registers: a new one, or the one that it had, on this connection.
  ServiceEntry& entry_of(const transport::Peer& from, protocol::Register message, Instant now);

  SchedulerTables& tables_;
  Leases& leases_;
  Dispatcher& dispatcher_;
  Decoding& decoding_;
};

}  // namespace optserve::scheduler
