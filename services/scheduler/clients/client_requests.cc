// What clients ask about jobs, open or ended, and about the system.
#include <algorithm>
#include <utility>

#include "scheduler/scheduler_service.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kServicesShown = 1'000;  // keeps the answer within a client's message limit

int64_t elapsed_ms(Instant from, Instant to) {
  return from == Instant{} || to == Instant{} ? 0 : std::chrono::duration_cast<milliseconds>(to - from).count();
}

}  // namespace

protocol::JobResult SchedulerService::describe(const Job& job) const {
  protocol::JobResult result;
  result.job = job.id;
  result.key = job.spec.key;
  result.tenant = job.spec.tenant;
  result.group = job.spec.group;
  result.losses = job.losses;
  result.state = job.state();
  result.text = job.text;
  result.ids = job.output;
  result.prompt_logprobs = job.prompt_logprobs;
  result.logprobs = job.logprobs;
  result.best = job.best;
  result.hypotheses = job.hypotheses;
  result.prompt_tokens = static_cast<int32_t>(job.prompt_ids.size());
  result.attempts = job.attempts;
  result.progress_done = job.is_generation() ? static_cast<int64_t>(job.output.size()) : job.progress_done;
  result.progress_total = job.is_generation() ? job.spec.max_new_tokens : job.progress_total;
  result.timings.encode_ms = elapsed_ms(std::max(job.begins_at, job.accepted_at), job.ready_at);
  result.timings.queue_ms = elapsed_ms(job.ready_at, job.leased_at);
  result.timings.first_token_ms = elapsed_ms(job.accepted_at, job.first_token_at);
  return result;
}

void SchedulerService::on(const Peer& from, const protocol::Attach& message, Instant now, Outbox& out) {
  if (Job* job = jobs_.find(message.job)) {
    if (!follow(*job, streams_.client(from), message.text_offset, job->accepted_sequence, now)) {
      refuse_to(from, message.request,
                refuse(ErrorCode::kBusy, "the job has its maximum of " +
                                             std::to_string(options_.subscriptions_per_job_max) + " followers"),
                out);
    }
    return;
  }
  find_result(from, message.request, {message.job, true, 0}, now, out);
}

void SchedulerService::on(const Peer& from, const protocol::Cancel& message, Instant now, Outbox& out) {
  if (Job* job = jobs_.find(message.job)) {
    finish(*job,
           {protocol::JobState::kCancelled, protocol::FinishReason::kCancelled, ErrorCode::kCancelled,
            "cancelled by the client"},
           now);
  }
  find_result(from, message.request, {message.job, false, 0}, now, out);
}

void SchedulerService::on(const Peer& from, const protocol::GetJob& message, Instant now, Outbox& out) {
  if (const Job* job = jobs_.find(message.job)) {
    protocol::JobResult result = describe(*job);
    const Place place = place_of(*job, now);
    result.position = place.position;
    result.eta_ms = place.eta_ms;
    out.send_after(job->accepted_sequence, from, protocol::JobStatus{message.request, std::move(result)});
    return;
  }
  find_result(from, message.request, {message.job, false, 0}, now, out);
}

void SchedulerService::find_result(const Peer& from, uint64_t request, AskedResult asked, Instant now, Outbox& out) {
  if (const RecentResults::Entry* known = recent_.find(asked.job, wall_ms(now))) {
    send_result({from, request, asked}, known->result, std::max(known->sequence, asked.after), out);
    return;
  }
  ask_store({from, request, asked}, journal::FindResult{asked.job}, out);
}

void SchedulerService::send_result(const StoreQuestion& asker, const SharedResult& result, uint64_t after,
                                   Outbox& out) {
  if (std::get<AskedResult>(asker.what).follow) {
    streams_.send_result(streams_.client(asker.peer), result, after);
  } else {
    out.send_after(after, asker.peer, protocol::JobStatus{asker.request, *result});
  }
}

bool SchedulerService::ask_store(StoreQuestion question, journal::Question to_store, Outbox& out) {
  const Peer peer = question.peer;
  const uint64_t request = question.request;
  if (questions_.ask(std::move(question), std::move(to_store))) return true;
  refuse_to(peer, request, refuse(ErrorCode::kBusy, "too many jobs are being looked up; try again soon"), out);
  return false;
}

void SchedulerService::on_answers(Instant now, Outbox& out) {
  for (auto& [asker, answer] : questions_.take_answers()) {
    if (const auto* asked = std::get_if<AskedRequeue>(&asker.what)) requeues_.erase(asked->job);
    if (const auto* refusal = std::get_if<Refusal>(&answer.body)) {
      refuse_to(asker.peer, asker.request, *refusal, out);
    } else if (const auto* result = std::get_if<AskedResult>(&asker.what)) {
      on_answer(asker, *result, std::get<journal::ResultFound>(std::move(answer.body)), out);
    } else if (auto* list = std::get_if<AskedList>(&asker.what)) {
      on_answer(asker, *list, std::get<journal::EndedListed>(std::move(answer.body)), out);
    } else if (const auto* requeue = std::get_if<AskedRequeue>(&asker.what)) {
      on_answer(asker, *requeue, std::get<journal::DeadFound>(std::move(answer.body)), now, out);
    } else if (std::holds_alternative<AskedPurge>(asker.what)) {
      on_answer(asker, std::get<journal::EndedPurged>(answer.body), out);
    } else {
      const auto& done = std::get<journal::BackUpDone>(answer.body);
      out.send(asker.peer, protocol::BackedUp{asker.request, done.file, done.bytes});
    }
  }
}

void SchedulerService::on_answer(const StoreQuestion& asker, const AskedResult& what, journal::ResultFound answer,
                                 Outbox& out) {
  if (answer.result) {
    send_result(asker, std::make_shared<const protocol::JobResult>(std::move(*answer.result)), what.after, out);
  } else {
    refuse_to(asker.peer, asker.request,
              refuse(ErrorCode::kNotFound, "job " + what.job.hex() + " is not known, or its result has expired"), out);
  }
}

bool SchedulerService::follow(Job& job, const std::shared_ptr<Client>& client, uint64_t text_offset, uint64_t after,
                              Instant now) {
  if (!streams_.subscribe(job, client, text_offset, after)) return false;
  if (job.is_cancelled_when_left()) followers_.followed(job, now);
  return true;
}

void SchedulerService::on(const Peer& from, const protocol::Credit& message, Instant now, Outbox& out) {
  if (streams_.on_credit(from, message, now)) resume_clients(now, out);
}

void SchedulerService::check_followers(Instant now, Outbox& out) {
  for (const JobId& id : streams_.take_left()) {
    Job* job = jobs_.find(id);
    if (job != nullptr && !streams_.has_followers(*job)) followers_.left(*job, now);
  }
  for (const JobId& id : followers_.take_silent(now)) {
    Job* job = jobs_.find(id);
    if (job == nullptr) continue;
    job->watched = false;
    if (!streams_.has_followers(*job)) continue;
    followers_.followed(*job, now);
    job->tell_anyway = true;
    streams_.touch(*job);
    streams_.probe(*job, out);
  }
  for (const JobId& id : followers_.take_left(now)) {
    Job* job = jobs_.find(id);
    if (job == nullptr || !FollowerWatch::is_abandoned(*job, now)) continue;
    finish(*job,
           {protocol::JobState::kCancelled, protocol::FinishReason::kCancelled, ErrorCode::kCancelled,
            "cancelled: nobody has followed it for " +
                std::to_string(std::chrono::duration_cast<seconds>(options_.disconnect_grace).count()) +
                " s, and it asked to be cancelled then"},
           now);
  }
}

void SchedulerService::on(const Peer& from, const protocol::GetStatus& message, Instant now, Outbox& out) {
  out.send(from, system_status(message.request, now));
}

protocol::SystemStatus SchedulerService::system_status(uint64_t request, Instant now) const {
  protocol::SystemStatus status;
  status.request = request;
  status.term = term_;
  status.durable = store_.is_durable();
  status.draining = draining_;
  status.running = static_cast<int64_t>(jobs_.count(Stage::kLeased) + jobs_.count(Stage::kDecoding));
  status.queued = static_cast<int64_t>(jobs_.size()) - status.running;
  status.finished = finished_count_;
  status.failed = failed_count_;
  status.mode = modes_.queue();
  status.read_only = store_.is_full();
  status.models = model_statuses();
  for (const auto kind :
       {protocol::ServiceKind::kTokenizer, protocol::ServiceKind::kWorker, protocol::ServiceKind::kConverter}) {
    for (const ServiceEntry* entry : services_.of_kind(kind)) {
      if (status.services.size() >= kServicesShown) break;
      protocol::ServiceStatus shown;
      shown.kind = protocol::service_kind_name(kind);
      shown.instance = entry->info.instance.hex();
      shown.name = entry->info.name;
      for (const protocol::ModelInfo& model : entry->info.models) shown.models.push_back(model.name);
      shown.running = static_cast<int32_t>(entry->leases.size() + entry->questions.size());
      shown.capacity = entry->info.max_sequences;
      shown.silent_ms = std::chrono::duration_cast<milliseconds>(now - entry->heard).count();
      shown.draining = entry->draining;
      shown.paused = entry->held;
      status.services.push_back(std::move(shown));
    }
  }
  return status;
}

}  // namespace optserve::scheduler
