// Services come, show that they live, and go.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "scheduler/scheduler_service.h"

namespace optserve::scheduler {

void SchedulerService::on(const Peer& from, protocol::Register message, Instant now, Outbox& out) {
  if (Status status = services_.check(message); !status.ok()) {
    log_warn("registration_refused", {{"name", message.name}, {"why", status.refusal().message}});
    if (ServiceEntry* entry = services_.find(message.instance))
      lose_service(*entry, "it registered anew, wrongly", now);
    refuse_to(from, 0, status.refusal(), out);
    return;
  }
  services_.learn(message);
  ServiceEntry* here = services_.find(from);
  if (here != nullptr && here->info.instance != message.instance) {
    lose_service(*here, "another process took its connection", now);
    here = nullptr;
  }
  ServiceEntry* entry = services_.find(message.instance);
  if (entry != nullptr && entry->info.kind != message.kind) {
    lose_service(*entry, "it changed its kind", now);
    entry = nullptr;
  }
  if (entry == nullptr) {
    entry = &services_.add(from, std::move(message), now);
    log_info("service_registered", {{"kind", protocol::service_kind_name(entry->info.kind)},
                                    {"name", entry->info.name},
                                    {"instance", entry->info.instance.hex()},
                                    {"capacity", entry->info.max_sequences},
                                    {"world", entry->info.world}});
  } else {
    if (entry->peer != from) {
      // Messages of the old connection may be lost on either side: nothing that depends on them goes on.
      std::vector<uint64_t>& revoked = revokes_[{from, term_}].second;
      for (const auto& [lease, job] : entry->leases) revoked.push_back(lease);
      end_session(*entry, "its connection was replaced", false, now);
      services_.move(*entry, from);
    }
    services_.replace_info(*entry, std::move(message));
    entry->pace = {};
  }
  entry->heard = now;
  entry->draining = false;
  entry->wanted = 0;
  entry->steps.reset();
  entry->held = modes_.holds_service(entry->info.instance.hex(), entry->info.name);
  queues_.join(*entry);
  entry->paused_until = now;
  out.send(from, protocol::Registered{term_});
}

void SchedulerService::on(ServiceEntry& from, const protocol::Heartbeat& message, Instant now, Outbox& out) {
  if (message.instance != from.info.instance) {
    refuse_to(from.peer, 0, refuse(ErrorCode::kNotFound, "another instance registered on this connection"), out);
    return;
  }
  // The first one tells where the count stands; it is no step.
  if (from.steps && message.steps != *from.steps) note_step(from, now);
  from.steps = message.steps;
  const int32_t wanted = std::max(0, message.capacity);
  if (from.draining != message.draining || from.wanted != wanted) {
    from.draining = message.draining;
    from.wanted = wanted;
    queues_.refresh(from);
  }
  out.send(from.peer, protocol::Pong{message.number, term_, queues_.waiting_for(from)});
}

void SchedulerService::on(ServiceEntry& from, const protocol::Goodbye& message, Instant now, Outbox&) {
  if (message.instance == from.info.instance) lose_service(from, "it said goodbye", now);
}

void SchedulerService::end_session(ServiceEntry& entry, const std::string& why, bool counts, Instant now) {
  std::vector<Job*> jobs;
  for (const auto& [lease, job] : entry.leases) jobs.push_back(job);
  for (Job* job : jobs) lose_lease(*job, why, counts, now);
  for (Job* job : tokenizers_.take_questions(entry)) ask_again(*job, counts, now);
}

void SchedulerService::lose_service(ServiceEntry& entry, const std::string& why, Instant now) {
  log_warn("service_lost", {{"kind", protocol::service_kind_name(entry.info.kind)},
                            {"name", entry.info.name},
                            {"instance", entry.info.instance.hex()},
                            {"leases", entry.leases.size()},
                            {"why", why}});
  end_session(entry, why, true, now);
  queues_.leave(entry);
  services_.remove(entry);
}

}  // namespace optserve::scheduler
