#include "scheduler/leases/registrations.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "scheduler/jobs/answers.h"

namespace optserve::scheduler {
namespace {

// Services send heartbeats each second. A connection that ends after a longer silence was given up by ZeroMQ, because
// the network is cut or the process is paused; nothing says that the process has ended.
constexpr milliseconds kHeardLately{2'500};

}  // namespace

void Registrations::on(const transport::Peer& from, protocol::Register message, Instant now, transport::Outbox& out) {
  if (Status status = tables_.services.check(message); !status.ok()) {
    log_warn("registration_refused", {{"name", message.name}, {"why", status.refusal().message}});
    ServiceEntry* entry = tables_.services.find(message.instance);
    if (entry != nullptr) lose(*entry, "it registered anew, wrongly", now);
    refuse_to(from, 0, status.refusal(), out);
    return;
  }
  tables_.services.learn(message);
  ServiceEntry& entry = entry_of(from, std::move(message), now);
  if (const keys::AllowedKey* key = tables_.access.key_of(from)) {
    entry.key_name = key->name;
    entry.folders = key->converter_folders;
  }
  entry.heard = now;
  entry.ended_at = {};
  entry.draining = false;
  entry.wanted = 0;
  entry.steps.reset();
  entry.held = tables_.modes.holds_service(entry.info.instance.hex(), entry.info.name);
  tables_.queues.join(entry);
  entry.paused_until = now;
  out.send(from, protocol::Registered{tables_.term});
}

ServiceEntry& Registrations::entry_of(const transport::Peer& from, protocol::Register message, Instant now) {
  ServiceEntry* here = tables_.services.find(from);
  if (here != nullptr && here->info.instance != message.instance) {
    lose(*here, "another process took its connection", now);
  }
  ServiceEntry* entry = tables_.services.find(message.instance);
  if (entry != nullptr && entry->info.kind != message.kind) {
    lose(*entry, "it changed its kind", now);
    entry = nullptr;
  }
  if (entry == nullptr) {
    entry = &tables_.services.add(from, std::move(message), now);
    log_info("service_registered", {{"kind", protocol::service_kind_name(entry->info.kind)},
                                    {"name", entry->info.name},
                                    {"instance", entry->info.instance.hex()},
                                    {"capacity", entry->info.max_sequences},
                                    {"world", entry->info.world}});
    return *entry;
  }
  if (entry->peer != from) {
    // Messages of the old connection may be lost in either direction.
    for (const auto& [lease, job] : entry->leases) leases_.tell_to_stop(from, tables_.term, lease);
    end_session(*entry, "its connection was replaced", false, now);
    tables_.services.move(*entry, from);
  }
  tables_.services.replace_info(*entry, std::move(message));
  entry->pace = {};
  return *entry;
}

void Registrations::on(ServiceEntry& from, const protocol::Heartbeat& message, Instant now, transport::Outbox& out) {
  if (message.instance != from.info.instance) {
    refuse_to(from.peer, 0, refuse(ErrorCode::kNotFound, "another instance registered on this connection"), out);
    return;
  }
  // The first heartbeat only gives the initial count; it is not progress.
  if (from.steps && message.steps != *from.steps) from.note_step(now);
  from.steps = message.steps;
  const int32_t wanted = std::max(0, message.capacity);
  if (from.draining != message.draining || from.wanted != wanted) {
    from.draining = message.draining;
    from.wanted = wanted;
    tables_.queues.refresh(from);
  }
  out.send(from.peer, protocol::Pong{message.number, tables_.term, tables_.queues.waiting_for(from)});
}

void Registrations::on(ServiceEntry& from, const protocol::Goodbye& message, Instant now) {
  if (message.instance != from.info.instance) return;
  log_info("service_left", {{"kind", protocol::service_kind_name(from.info.kind)},
                            {"name", from.info.name},
                            {"instance", from.info.instance.hex()}});
  remove(from, "it said goodbye", now);
}

void Registrations::end_session(ServiceEntry& entry, const std::string& why, bool counts, Instant now) {
  std::vector<Job*> jobs;
  for (const auto& [lease, job] : entry.leases) jobs.push_back(job);
  for (Job* job : jobs) dispatcher_.lose(*job, why, counts, now);
  for (Job* job : tables_.tokenizers.take_questions(entry)) decoding_.ask_again(*job, counts, now);
}

void Registrations::lose(ServiceEntry& entry, const std::string& why, Instant now) {
  log_warn("service_lost", {{"kind", protocol::service_kind_name(entry.info.kind)},
                            {"name", entry.info.name},
                            {"instance", entry.info.instance.hex()},
                            {"leases", entry.leases.size()},
                            {"silent_ms", std::chrono::duration_cast<milliseconds>(now - entry.heard).count()},
                            {"why", why}});
  tables_.metrics.services_lost[static_cast<size_t>(entry.info.kind) - 1].add();
  remove(entry, why, now);
}

void Registrations::remove(ServiceEntry& entry, const std::string& why, Instant now) {
  end_session(entry, why, true, now);
  tables_.queues.leave(entry);
  tables_.services.remove(entry);
}

void Registrations::connection_ended(ServiceEntry& entry, Instant now) {
  if (entry.is_away()) return;
  entry.ended_at = now;
  tables_.queues.refresh(entry);
  tables_.services.check_at(entry, lost_at(entry));
}

Instant Registrations::lost_at(const ServiceEntry& entry) const {
  const Instant silent_at = entry.heard + tables_.options.service_lost_after;
  if (!entry.is_away() || entry.ended_at - entry.heard > kHeardLately) return silent_at;
  return std::min(silent_at, entry.ended_at + tables_.options.service_returns_within);
}

// A connection alone ends no job: one whose last attempt this is waits as long as for a silent service.
void Registrations::lose_away(ServiceEntry& entry, Instant now) {
  const std::string why = "its connection ended";
  std::vector<Job*> jobs;
  for (const auto& [lease, job] : entry.leases) {
    if (job->attempts().count < job->spec().max_attempts) jobs.push_back(job);
  }
  if (jobs.size() == entry.leases.size()) return lose(entry, why, now);
  for (Job* job : jobs) dispatcher_.lose(*job, why, true, now);
  tables_.services.check_at(entry, entry.heard + tables_.options.service_lost_after);
}

// Each service is checked only when its time could be over, not at every tick.
void Registrations::lose_dead(Instant now) {
  const SchedulerOptions& options = tables_.options;
  while (ServiceEntry* entry = tables_.services.due(now)) {
    const Instant silent_at = entry->heard + options.service_lost_after;
    if (silent_at <= now) {
      lose(*entry, "it was silent for too long", now);
      continue;
    }
    if (entry->is_away()) {
      const Instant away_until = lost_at(*entry);
      if (away_until <= now) {
        lose_away(*entry, now);
      } else {
        tables_.services.check_at(*entry, away_until);
      }
      continue;
    }
    Instant next = std::min(silent_at, now + options.service_stalled_after.min);
    if (entry->info.kind == protocol::ServiceKind::kWorker && !entry->leases.empty()) {
      const Instant stalled_at = entry->progressed + entry->pace.limit(options.service_stalled_after);
      if (stalled_at <= now) {
        lose(*entry, "it holds jobs but makes no progress", now);
        continue;
      }
      next = std::min(next, stalled_at);
    }
    tables_.services.check_at(*entry, next);
  }
}

}  // namespace optserve::scheduler
