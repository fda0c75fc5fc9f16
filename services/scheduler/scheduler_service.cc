#include "scheduler/scheduler_service.h"

#include <utility>

#include "base/log.h"

namespace optserve::scheduler {
namespace {

constexpr seconds kSweepInterval{10};

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

}  // namespace

SchedulerService::SchedulerService(SchedulerOptions options, journal::JobStore& store, journal::Recovery recovery,
                                   Registry& registry)
    : options_(std::move(options)),
      store_(store),
      term_(recovery.term),
      restarted_(recovery.term > 1),
      metrics_(registry),
      queues_(options_),
      bounds_(options_),
      tokenizers_(options_, services_),
      streams_(options_),
      recent_(options_.recent_bytes_max),
      keys_(options_.known_keys_max),
      questions_(store, options_.store_questions_max),
      followers_(options_),
      random_(options_.seed) {
  recover(std::move(recovery));
}

void SchedulerService::recover(journal::Recovery recovery) {
  next_order_ = recovery.next_order;
  for (journal::KnownKey& known : recovery.keys) {
    keys_.add(known.tenant, known.key, {known.job, std::move(known.payload_sha256), known.group});
    if (keys_.end(known.tenant, known.key, known.job, known.state, known.expires_wall_ms)) {
      groups_.ended(known.tenant, known.group, known.state);
    }
  }
  forget_group_members();
  for (const journal::ModeSet& held : recovery.modes) {
    if (!modes_.set(held.scope, held.name, held.mode).ok()) log_warn("mode_lost", {{"name", held.name}});
  }
  for (journal::OpenJob& open : recovery.open) {
    auto job = std::make_unique<Job>();
    job->id = open.accepted.job;
    job->order = open.accepted.order;
    job->payload_sha256 = std::move(open.accepted.payload_sha256);
    job->spec = std::move(open.accepted.spec);
    // Log-probabilities are not in the journal: a job that wants them starts again, to the same tokens.
    if (!job->spec.prompt_logprobs && !job->wants_logprobs()) job->output = std::move(open.progress);
    job->attempts = open.attempts;
    job->crashes = open.crashes;
    job->started = job->attempts > 0 || job->crashes > 0 || !job->output.empty();
    job->losses = std::move(open.losses);
    job->accepted_wall_ms = open.accepted.accepted_wall_ms;
    set_times(*job, options_.start, options_.start_wall_ms - open.accepted.accepted_wall_ms);
    Job& added = add_job(std::move(job));
    note_open(added);
    if (added.crashes >= options_.crashes_max) {
      give_up(added, "the scheduler stopped " + std::to_string(added.crashes) + " times while this job was running",
              options_.start);
      continue;
    }
    if (added.attempts >= added.spec.max_attempts) {  // we stopped between the last loss and the end that follows it
      give_up(added, last_attempt(added) + " was lost before the scheduler restarted", options_.start);
      continue;
    }
    begin(added, options_.start);
  }
  if (restarted_) {
    log_info("jobs_recovered", {{"term", term_}, {"open", jobs_.size()}, {"keys", recovery.keys.size()}});
  }
}

int64_t SchedulerService::wall_ms(Instant now) const {
  return options_.start_wall_ms + std::chrono::duration_cast<milliseconds>(now - options_.start).count();
}

void SchedulerService::refuse_to(const Peer& to, uint64_t request, const Refusal& why, Outbox& out) {
  out.send(to, protocol::Refused{request, why.code, why.message});
}

void SchedulerService::on_message(const Peer& from, protocol::Message message, Instant now, Outbox& out) {
  durable_ = store_.durable();
  if (const auto* ping = std::get_if<protocol::Ping>(&message)) {
    ServiceEntry* entry = services_.find(from);
    if (entry != nullptr) entry->heard = now;
    out.send(from, protocol::Pong{ping->number, term_, entry != nullptr ? queues_.waiting_for(*entry) : 0});
  } else if (std::holds_alternative<protocol::Pong>(message)) {
    if (ServiceEntry* entry = services_.find(from)) entry->heard = now;
  } else if (const auto* refused = std::get_if<protocol::Refused>(&message)) {
    // Never answered: two programs must not refuse each other for ever.
    log_warn("peer_refused", {{"code", error_code_name(refused->code)}, {"message", refused->message.substr(0, 256)}});
  } else if (from.port == options_.clients_port) {
    on_client_message(from, std::move(message), now, out);
  } else {
    on_service_message(from, std::move(message), now, out);
  }
}

void SchedulerService::on_client_message(const Peer& from, protocol::Message message, Instant now, Outbox& out) {
  const std::string name(protocol::message_name(message));
  std::visit(Overloaded{
                 [&](protocol::Submit& m) { on(from, std::move(m), now, out); },
                 [&](protocol::Attach& m) { on(from, m, now, out); },
                 [&](protocol::Cancel& m) { on(from, m, now, out); },
                 [&](protocol::GetJob& m) { on(from, m, now, out); },
                 [&](protocol::GetStatus& m) { on(from, m, now, out); },
                 [&](protocol::Credit& m) { on(from, m, now, out); },
                 [&](protocol::Control& m) { on(from, m, now, out); },
                 [&](protocol::ListJobs& m) { on(from, m, now, out); },
                 [&](protocol::Requeue& m) { on(from, m, now, out); },
                 [&](protocol::Purge& m) { on(from, m, now, out); },
                 [&](protocol::GetGroup& m) { on(from, m, now, out); },
                 [&](protocol::Backup& m) { on(from, m, now, out); },
                 [&](auto&) {
                   refuse_to(from, 0, refuse(ErrorCode::kBadRequest, name + " is not a message that clients send"),
                             out);
                 },
             },
             message);
}

void SchedulerService::on_service_message(const Peer& from, protocol::Message message, Instant now, Outbox& out) {
  if (auto* registration = std::get_if<protocol::Register>(&message)) {
    on(from, std::move(*registration), now, out);
    return;
  }
  ServiceEntry* entry = services_.find(from);
  if (entry == nullptr) {
    refuse_to(from, 0, refuse(ErrorCode::kNotFound, "this connection is not registered; send Register first"), out);
    return;
  }
  entry->heard = now;
  const std::string name(protocol::message_name(message));
  std::visit(Overloaded{
                 [&](protocol::Heartbeat& m) { on(*entry, m, now, out); },
                 [&](protocol::Goodbye& m) { on(*entry, m, now, out); },
                 [&](protocol::Encoded& m) { on(*entry, std::move(m), now, out); },
                 [&](protocol::Decoded& m) { on(*entry, std::move(m), now, out); },
                 [&](protocol::Tokens& m) { on(*entry, m, now, out); },
                 [&](protocol::PromptLogprobs& m) { on(*entry, m, now, out); },
                 [&](protocol::Hypotheses& m) { on(*entry, std::move(m), now, out); },
                 [&](protocol::LeaseFailed& m) { on(*entry, m, now, out); },
                 [&](protocol::ConvertProgress& m) { on(*entry, m, now, out); },
                 [&](auto&) {
                   refuse_to(from, 0, refuse(ErrorCode::kBadRequest, name + " is not a message that services send"),
                             out);
                 },
             },
             message);
}

void SchedulerService::on_undeliverable(const Peer& to, protocol::Message message, bool slow, Instant now, Outbox&) {
  if (to.port == options_.clients_port) {
    if (!slow) {
      streams_.on_gone(to);
      return;
    }
    metrics_.slow_clients.add();
    if (const auto* events = std::get_if<protocol::JobEvents>(&message)) {
      for (const protocol::JobEvent& event : events->events) {
        if (Job* job = jobs_.find(event.job)) ClientStreams::rewind(*job, to, event.text_offset);
      }
      streams_.on_slow(to, *events, now);
    } else if (const auto* finished = std::get_if<protocol::JobFinished>(&message)) {
      streams_.on_slow(to, finished->result, now);
    }
    return;  // other answers: the client asks again
  }
  ServiceEntry* entry = services_.find(to);
  if (entry == nullptr) return;
  queues_.pause(*entry, now + milliseconds(500));
  if (const auto* dispatched = std::get_if<protocol::Dispatch>(&message)) {
    std::vector<uint64_t> leases;
    for (const protocol::DispatchItem& item : dispatched->items) leases.push_back(item.lease);
    undelivered_dispatch(*entry, leases, now);
  } else if (const auto* conversion = std::get_if<protocol::ConvertDispatch>(&message)) {
    undelivered_dispatch(*entry, {conversion->lease}, now);
  }
  const auto ask_elsewhere = [&](const auto& items) {
    for (const auto& item : items) {
      const auto found = entry->questions.find(item.ticket);
      if (found != entry->questions.end()) ask_again(*found->second, false, now);
    }
  };
  if (const auto* encode = std::get_if<protocol::Encode>(&message)) ask_elsewhere(encode->items);
  if (const auto* decode = std::get_if<protocol::Decode>(&message)) ask_elsewhere(decode->items);
  if (!slow) lose_service(*entry, "its connection ended", now);
}

void SchedulerService::on_tick(Instant now, Outbox& out) {
  durable_ = store_.durable();
  check_services(now);
  for (Job* job : tokenizers_.take_overdue(now)) ask_again(*job, true, now);
  expire_jobs(now);
  end_delays(now);
  queues_.on_tick(now);
  tell_places(now);
  on_answers(now, out);
  check_followers(now, out);
  resume_clients(now, out);
  if (now >= next_sweep_) {
    next_sweep_ = now + kSweepInterval;
    keys_.expire(wall_ms(now));
    forget_group_members();
    streams_.sweep(now);
  }
  update_gauges();
}

void SchedulerService::resume_clients(Instant now, Outbox& out) {
  for (auto& [client, jobs] : streams_.take_resumed(now)) {
    for (const JobId& id : jobs) {
      if (Job* job = jobs_.find(id)) {
        streams_.touch(*job);
        continue;
      }
      find_result(client->peer, 0, {id, true, 0}, now, out);
    }
  }
}

void SchedulerService::on_flush(Instant now, Outbox& out) {
  work_for_operators(now, out);
  if (queues_.is_wanted()) dispatch(now, out);
  tokenizers_.flush(now, out);
  if (!revokes_.empty()) send_revokes(out);
  streams_.flush(durable_, now, out);
  jobs_.clear_ended();
}

void SchedulerService::begin_drain(Instant, Outbox&) { draining_ = true; }

bool SchedulerService::is_drained() const {
  return draining_ && jobs_.count(Stage::kLeased) == 0 && jobs_.count(Stage::kDecoding) == 0;
}

void SchedulerService::give_back_leases() {
  jobs_.for_each([&](Job& job) {
    if (job.lease == 0) return;
    store_.append(journal::Leased{job.id, job.order, {term_, 0}, job.attempts - 1});
    if (job.output.size() > job.progress_saved) store_.append(journal::Progress{job.id, job.order, job.output});
  });
}

void SchedulerService::update_gauges() {
  metrics_.encoding.set(static_cast<double>(jobs_.count(Stage::kEncoding)));
  metrics_.waiting.set(static_cast<double>(jobs_.count(Stage::kWaiting) + jobs_.count(Stage::kDelayed)));
  metrics_.running.set(static_cast<double>(jobs_.count(Stage::kLeased)));
  metrics_.decoding.set(static_cast<double>(jobs_.count(Stage::kDecoding)));
  const auto count = [&](protocol::ServiceKind kind) { return static_cast<double>(services_.of_kind(kind).size()); };
  metrics_.services_tokenizer.set(count(protocol::ServiceKind::kTokenizer));
  metrics_.services_worker.set(count(protocol::ServiceKind::kWorker));
  metrics_.services_converter.set(count(protocol::ServiceKind::kConverter));
  metrics_.clients.set(static_cast<double>(streams_.size()));
  metrics_.known_keys.set(static_cast<double>(keys_.size()));
  update_queue_gauges();
}

}  // namespace optserve::scheduler
