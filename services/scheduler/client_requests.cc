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
  result.state = job.stage == Stage::kLeased || job.stage == Stage::kDecoding ? protocol::JobState::kRunning
                                                                              : protocol::JobState::kQueued;
  result.text = job.text;
  result.ids = job.output;
  result.prompt_logprobs = job.prompt_logprobs;
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
    if (!streams_.subscribe(*job, streams_.client(from), message.text_offset, job->accepted_sequence)) {
      refuse_to(from, message.request,
                refuse(ErrorCode::kBusy, "the job has its maximum of " +
                                             std::to_string(options_.subscriptions_per_job_max) + " followers"),
                out);
    }
    return;
  }
  const ResultQuestion question{from, message.request, message.job, ResultQuestion::Kind::kFollow, 0};
  if (!send_known_result(from, question, now, out)) ask_store(message.job, question, out);
}

void SchedulerService::on(const Peer& from, const protocol::Cancel& message, Instant now, Outbox& out) {
  if (Job* job = jobs_.find(message.job)) {
    finish(*job,
           {protocol::JobState::kCancelled, protocol::FinishReason::kCancelled, ErrorCode::kCancelled,
            "cancelled by the client"},
           now);
  }
  const ResultQuestion question{from, message.request, message.job, ResultQuestion::Kind::kStatus, 0};
  if (!send_known_result(from, question, now, out)) ask_store(message.job, question, out);
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
  const ResultQuestion question{from, message.request, message.job, ResultQuestion::Kind::kStatus, 0};
  if (!send_known_result(from, question, now, out)) ask_store(message.job, question, out);
}

bool SchedulerService::send_known_result(const Peer&, const ResultQuestion& question, Instant now, Outbox& out) {
  const RecentResults::Entry* known = recent_.find(question.job, wall_ms(now));
  if (known == nullptr) return false;
  send_result(question, known->result, std::max(known->sequence, question.after), out);
  return true;
}

void SchedulerService::send_result(const ResultQuestion& question, const SharedResult& result, uint64_t after,
                                   Outbox& out) {
  if (question.kind == ResultQuestion::Kind::kStatus) {
    out.send_after(after, question.peer, protocol::JobStatus{question.request, *result});
  } else {
    streams_.send_result(streams_.client(question.peer), result, after);
  }
}

void SchedulerService::ask_store(const JobId& job, ResultQuestion question, Outbox& out) {
  if (result_questions_.size() >= options_.result_questions_max) {
    refuse_to(question.peer, question.request,
              refuse(ErrorCode::kBusy, "too many results are being read; try again soon"), out);
    return;
  }
  const uint64_t number = next_question_++;
  result_questions_.emplace(number, std::move(question));
  store_.ask(number, journal::FindResult{job});
}

void SchedulerService::on_answers(Instant, Outbox& out) {
  if (result_questions_.empty()) return;
  for (journal::Answer& answer : store_.poll_answers()) {
    const auto found = result_questions_.find(answer.request);
    if (found == result_questions_.end()) continue;
    const ResultQuestion question = std::move(found->second);
    result_questions_.erase(found);
    auto& [job, result] = std::get<journal::ResultFound>(answer.body);
    if (result) {
      send_result(question, std::make_shared<const protocol::JobResult>(std::move(*result)), question.after, out);
    } else {
      refuse_to(question.peer, question.request,
                refuse(ErrorCode::kNotFound, "job " + job.hex() + " is not known, or its result has expired"), out);
    }
  }
}

void SchedulerService::on(const Peer& from, const protocol::GetStatus& message, Instant now, Outbox& out) {
  protocol::SystemStatus status;
  status.request = message.request;
  status.term = term_;
  status.durable = store_.is_durable();
  status.draining = draining_;
  status.running = static_cast<int64_t>(jobs_.count(Stage::kLeased) + jobs_.count(Stage::kDecoding));
  status.queued = static_cast<int64_t>(jobs_.size()) - status.running;
  status.finished = finished_count_;
  status.failed = failed_count_;
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
      status.services.push_back(std::move(shown));
    }
  }
  out.send(from, std::move(status));
}

}  // namespace optserve::scheduler
