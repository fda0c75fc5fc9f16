#include "scheduler/scheduler_service.h"

#include <utility>

#include "base/log.h"
#include "scheduler/jobs/answers.h"
#include "scheduler/tenants/payers.h"

namespace optserve::scheduler {
namespace {

constexpr seconds kSweepInterval{10};
constexpr milliseconds kQuotasInterval{100};
constexpr milliseconds kUndeliverablePause{500};  // for which a service that did not take a message gets no work

uint64_t request_of(const protocol::Message& message) {
  return std::visit(
      [](const auto& body) -> uint64_t {
        if constexpr (requires { body.request; }) return body.request;
        return 0;
      },
      message);
}

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;  // clang 16 needs to be told

}  // namespace

using transport::Outbox;
using transport::Peer;

SchedulerService::SchedulerService(SchedulerOptions options, journal::JobStore& store, journal::Recovery recovery,
                                   metrics::Registry& registry)
    : tables_(std::move(options), store, recovery.term, registry) {
  if (!tables_.options.waiting_folder.empty()) {
    tables_.jobs.parked().park_in(std::make_unique<BodyFile>(tables_.options.waiting_folder),
                                  tables_.options.waiting_in_memory_max);
  }
  admission_.recover(std::move(recovery));
}

void SchedulerService::on_message(const Peer& from, protocol::Message message, Instant now, Outbox& out) {
  const size_t first = out.items().size();
  audit_.begin(from, message, request_of(message), now);
  handle(from, std::move(message), now, out);
  audit_.end(out, first, now);
}

void SchedulerService::handle(const Peer& from, protocol::Message message, Instant now, Outbox& out) {
  durable_ = tables_.store.durable();
  if (tables_.tenants.is_on() && from.port == tables_.options.clients_port) {
    if (!count_message(from, message, now, out)) return;
  }
  if (tables_.access.is_on()) {
    if (Status status = check_access(from, message, now); !status.ok()) {
      tables_.metrics.not_allowed.add();
      log_debug("not_allowed", {{"why", status.refusal().message}});
      refuse_to(from, request_of(message), status.refusal(), out);
      return;
    }
  }
  if (const auto* ping = std::get_if<protocol::Ping>(&message)) {
    ServiceEntry* entry = tables_.services.find(from);
    if (entry != nullptr) entry->heard = now;
    out.send(from,
             protocol::Pong{ping->number, tables_.term, entry != nullptr ? tables_.queues.waiting_for(*entry) : 0});
  } else if (std::holds_alternative<protocol::Pong>(message)) {
    if (ServiceEntry* entry = tables_.services.find(from)) entry->heard = now;
  } else if (const auto* refused = std::get_if<protocol::Refused>(&message)) {
    // Never answered: two programs must not refuse each other for ever.
    log_warn("peer_refused", {{"code", error_code_name(refused->code)}, {"message", refused->message.substr(0, 256)}});
  } else if (from.port == tables_.options.clients_port) {
    on_client_message(from, std::move(message), now, out);
  } else {
    on_service_message(from, std::move(message), now, out);
  }
}

bool SchedulerService::count_message(const Peer& from, const protocol::Message& message, Instant now, Outbox& out) {
  for (const auto& [tenant, count] : payers_of(message, tables_.access.key_of(from), tables_.jobs)) {
    const auto over = tables_.tenants.take_messages(tenant, count, now);
    if (!over) continue;
    tables_.metrics.messages_over_rate.add();
    tables_.metrics.of_tenant(tenant, tables_.tenants.quotas()).refused.add();
    refuse_to(from, request_of(message), refuse(ErrorCode::kBusy, over->message), out, over->retry_after_ms);
    return false;
  }
  return true;
}

void SchedulerService::refresh_quotas(Instant now) {
  if (!quota_source_ || now < next_quotas_) return;
  next_quotas_ = now + kQuotasInterval;
  auto quotas = quota_source_();
  if (quotas == nullptr) return;
  tables_.tenants.set(std::move(quotas));
  tables_.running.release_all();
}

Status SchedulerService::check_access(const Peer& from, protocol::Message& message, Instant now) const {
  const keys::AllowedKey* key = tables_.access.key_of(from);
  if (key == nullptr) return refuse(ErrorCode::kBadRequest, "not allowed: this connection has no key");
  if (Status status = check_rights(*key, message); !status.ok()) return status;
  if (const auto* attach = std::get_if<protocol::Attach>(&message)) return check_job(from, attach->job, now);
  if (const auto* cancel = std::get_if<protocol::Cancel>(&message)) return check_job(from, cancel->job, now);
  if (const auto* get = std::get_if<protocol::GetJob>(&message)) return check_job(from, get->job, now);
  if (const auto* registration = std::get_if<protocol::Register>(&message)) {
    const ServiceEntry* known = tables_.services.find(registration->instance);
    if (known != nullptr && known->key_name != key->name) {
      return refuse(ErrorCode::kBadRequest, "not allowed: this instance registered with another key");
    }
  }
  return ok_status();
}

// Another tenant's job is answered like one that never existed. Jobs that only the journal knows are checked when it
// answers.
Status SchedulerService::check_job(const Peer& from, const JobId& id, Instant now) const {
  const Job* job = tables_.jobs.find(id);
  bool is_seen = job == nullptr || tables_.access.sees(from, job->spec().tenant);
  if (const auto* ended = tables_.known.results().find(id, tables_.store.time_ms(now))) {
    is_seen &= tables_.access.sees(from, ended->result->tenant);
  }
  return is_seen ? ok_status() : Status(unknown_job(id));
}

void SchedulerService::on_expelled(const Peer& peer, const std::string& why, Instant now, Outbox&) {
  if (peer.port == tables_.options.clients_port) {
    client_gone(peer);
  } else if (ServiceEntry* entry = tables_.services.find(peer)) {
    registrations_.lose(*entry, why, now);
  }
}

void SchedulerService::on_ended(const Peer& peer, Instant now, Outbox&) {
  if (peer.port == tables_.options.clients_port) {
    client_gone(peer);
  } else if (ServiceEntry* entry = tables_.services.find(peer)) {
    registrations_.connection_ended(*entry, now);
  }
}

void SchedulerService::client_gone(const Peer& peer) {
  const size_t followed = tables_.streams.on_gone(peer);
  if (followed == 0) return;
  const keys::AllowedKey* key = tables_.access.key_of(peer);
  log_info("client_lost", {{"followed", followed}, {"key", key != nullptr ? key->name : ""}});
  tables_.metrics.clients_lost.add();
}

void SchedulerService::on_client_message(const Peer& from, protocol::Message message, Instant now, Outbox& out) {
  const std::string name(protocol::message_name(message));
  std::visit(Overloaded{
                 [&](protocol::Submit& m) { requests_.on(from, std::move(m), now, out); },
                 [&](protocol::Attach& m) { requests_.on(from, m, now, out); },
                 [&](protocol::Cancel& m) { requests_.on(from, m, now, out); },
                 [&](protocol::GetJob& m) { requests_.on(from, m, now, out); },
                 [&](protocol::Credit& m) { requests_.on(from, m, now, out); },
                 [&](protocol::GetStatus& m) { out.send(from, report_.status(m.request, now)); },
                 [&](protocol::Control& m) { operators_.on(from, m, now, out); },
                 [&](protocol::ListJobs& m) { operators_.on(from, m, out); },
                 [&](protocol::Requeue& m) { operators_.on(from, m, out); },
                 [&](protocol::Purge& m) { operators_.on(from, m, out); },
                 [&](protocol::GetGroup& m) { operators_.on(from, m, out); },
                 [&](protocol::Backup& m) { operators_.on(from, m, out); },
                 [&](auto&) {
                   refuse_to(from, 0, refuse(ErrorCode::kBadRequest, name + " is not a message that clients send"),
                             out);
                 },
             },
             message);
}

void SchedulerService::on_service_message(const Peer& from, protocol::Message message, Instant now, Outbox& out) {
  if (auto* registration = std::get_if<protocol::Register>(&message)) {
    registrations_.on(from, std::move(*registration), now, out);
    return;
  }
  ServiceEntry* entry = tables_.services.find(from);
  if (entry == nullptr) {
    refuse_to(from, 0, refuse(ErrorCode::kNotFound, "this connection is not registered; send Register first"), out);
    return;
  }
  entry->heard = now;
  const std::string name(protocol::message_name(message));
  std::visit(Overloaded{
                 [&](protocol::Heartbeat& m) { registrations_.on(*entry, m, now, out); },
                 [&](protocol::Goodbye& m) { registrations_.on(*entry, m, now); },
                 [&](protocol::Encoded& m) { preparation_.on(*entry, std::move(m), now); },
                 [&](protocol::Decoded& m) { decoding_.on(*entry, std::move(m), now); },
                 [&](protocol::Tokens& m) { intake_.on(*entry, m, now, out); },
                 [&](protocol::PromptLogprobs& m) { intake_.on(*entry, m, now); },
                 [&](protocol::Hypotheses& m) { intake_.on(*entry, std::move(m), now); },
                 [&](protocol::ConvertProgress& m) { intake_.on(*entry, m, now); },
                 [&](protocol::LeaseFailed& m) { dispatcher_.on(*entry, m, now); },
                 [&](auto&) {
                   refuse_to(from, 0, refuse(ErrorCode::kBadRequest, name + " is not a message that services send"),
                             out);
                 },
             },
             message);
}

void SchedulerService::on_undeliverable(const Peer& to, protocol::Message message, bool slow, Instant now, Outbox&) {
  if (to.port == tables_.options.clients_port) {
    not_taken_by_client(to, message, slow, now);
    return;
  }
  ServiceEntry* entry = tables_.services.find(to);
  if (entry == nullptr) return;
  not_taken_by_service(*entry, message, now);
  if (!slow) registrations_.connection_ended(*entry, now);
}

void SchedulerService::not_taken_by_client(const Peer& to, const protocol::Message& message, bool slow, Instant now) {
  if (!slow) {
    client_gone(to);
    return;
  }
  tables_.metrics.slow_clients.add();
  if (const auto* events = std::get_if<protocol::JobEvents>(&message)) {
    for (const protocol::JobEvent& event : events->events) {
      if (Job* job = tables_.jobs.find(event.job)) ClientStreams::rewind(*job, to, event);
    }
    tables_.streams.on_slow(to, *events, now);
  } else if (const auto* finished = std::get_if<protocol::JobFinished>(&message)) {
    tables_.streams.on_slow(to, finished->result, now);
  }
  // Other answers: the client asks again.
}

void SchedulerService::not_taken_by_service(ServiceEntry& entry, const protocol::Message& message, Instant now) {
  tables_.queues.pause(entry, now + kUndeliverablePause);
  const auto ask_elsewhere = [&](const auto& items) {
    for (const auto& item : items) {
      const auto found = entry.questions.find(item.ticket);
      if (found != entry.questions.end()) decoding_.ask_again(*found->second, false, now);
    }
  };
  if (const auto* dispatched = std::get_if<protocol::Dispatch>(&message)) {
    std::vector<uint64_t> leases;
    for (const protocol::DispatchItem& item : dispatched->items) leases.push_back(item.lease);
    dispatcher_.undelivered(entry, leases, now);
  } else if (const auto* conversion = std::get_if<protocol::ConvertDispatch>(&message)) {
    dispatcher_.undelivered(entry, {conversion->lease}, now);
  } else if (const auto* encode = std::get_if<protocol::Encode>(&message)) {
    ask_elsewhere(encode->items);
  } else if (const auto* decode = std::get_if<protocol::Decode>(&message)) {
    ask_elsewhere(decode->items);
  }
}

void SchedulerService::on_answers(Instant now, Outbox& out) {
  const size_t first = out.items().size();
  take_answers(now, out);
  audit_.see(out, first, now);
}

void SchedulerService::take_answers(Instant now, Outbox& out) {
  for (auto& [asker, answer] : tables_.questions.take_answers()) {
    if (const auto* refusal = std::get_if<Refusal>(&answer.body)) {
      if (const auto* requeue = std::get_if<AskedRequeue>(&asker.what)) operators_.on_refused(*requeue);
      refuse_to(asker.peer, asker.request, *refusal, out);
      continue;
    }
    std::visit(Overloaded{
                   [&](AskedResult& what) {
                     auto found = std::get<journal::ResultFound>(std::move(answer.body));
                     if (found.result && !tables_.access.sees(asker.peer, found.result->tenant)) found.result.reset();
                     requests_.on_answer(asker, what, std::move(found), out);
                   },
                   [&](AskedList& what) {
                     operators_.on_answer(asker, what, std::get<journal::EndedListed>(std::move(answer.body)), out);
                   },
                   [&](AskedRequeue& what) {
                     operators_.on_answer(asker, what, std::get<journal::DeadFound>(std::move(answer.body)), now, out);
                   },
                   [&](AskedPurge&) { operators_.on_answer(asker, std::get<journal::EndedPurged>(answer.body), out); },
                   [&](AskedBackup&) { operators_.on_answer(asker, std::get<journal::BackUpDone>(answer.body), out); },
               },
               asker.what);
  }
}

void SchedulerService::on_tick(Instant now, Outbox& out) {
  durable_ = tables_.store.durable();
  refresh_quotas(now);
  registrations_.lose_dead(now);
  for (Job* job : tables_.tokenizers.take_overdue(now)) decoding_.ask_again(*job, true, now);
  endings_.expire_due(now);
  preparation_.end_delays(now);
  tables_.queues.on_tick(now);
  places_.tell(now);
  on_answers(now, out);
  followers_.check(now, out);
  requests_.resume_clients(now, out);
  if (now >= next_sweep_) {
    next_sweep_ = now + kSweepInterval;
    tables_.known.expire(tables_.store.time_ms(now));
    tables_.streams.sweep(now);
    tables_.tenants.sweep(now);
    audit_.sweep(now);
  }
  report_.update_gauges(now);
}

void SchedulerService::on_flush(Instant now, Outbox& out) {
  const size_t first = out.items().size();
  operators_.work(now, out);
  audit_.see(out, first, now);
  if (tables_.queues.is_wanted()) dispatcher_.dispatch(now, out);
  tables_.tokenizers.flush(now, out);
  leases_.send_revokes(out);
  tables_.streams.flush(durable_, now, out);
  tables_.jobs.clear_ended();
  tables_.jobs.parked().park_excess();
}

void SchedulerService::begin_drain(Instant, Outbox&) {
  tables_.draining = true;
  audit_.draining();
}

bool SchedulerService::is_drained() const {
  return tables_.draining && tables_.jobs.count(Stage::kLeased) == 0 && tables_.jobs.count(Stage::kDecoding) == 0;
}

}  // namespace optserve::scheduler
