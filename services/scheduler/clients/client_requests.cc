#include "scheduler/clients/client_requests.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "scheduler/jobs/answers.h"
#include "scheduler/queue/places.h"

namespace optserve::scheduler {

using transport::Outbox;
using transport::Peer;

void ClientRequests::on(const Peer& from, protocol::Submit message, Instant now, Outbox& out) {
  // With a journal the scheduler accepts jobs until it ends: the next process starts them.
  if (tables_.draining && !tables_.store.is_durable()) {
    refuse_to(from, message.request, refuse(ErrorCode::kUnavailable, "the scheduler is stopping; try again soon"), out);
    return;
  }
  if (message.jobs.empty() || message.jobs.size() > limits::kJobsPerSubmitMax) {
    refuse_to(from, message.request,
              refuse(ErrorCode::kBadRequest, "jobs: expected 1 to " + std::to_string(limits::kJobsPerSubmitMax) +
                                                 ", found " + std::to_string(message.jobs.size())),
              out);
    return;
  }
  protocol::SubmitReply reply;
  reply.request = message.request;
  std::vector<JobId> followed, ended;
  uint64_t after = 0;
  for (protocol::JobSpec& spec : message.jobs) {
    Admission::Answer answer = admission_.admit(std::move(spec), now);
    after = std::max(after, answer.after);
    if (message.stream && answer.outcome.job) {
      const JobId id = *answer.outcome.job;
      Job* job = tables_.jobs.find(id);
      if (job == nullptr) {
        ended.push_back(id);
      } else if (followers_.follow(*job, tables_.streams.client(from), {}, now)) {
        followed.push_back(id);
      } else {
        answer.outcome.unfollowed = true;
      }
    }
    reply.outcomes.push_back(std::move(answer.outcome));
  }
  const uint64_t leaves_after = out.send_after(after, from, std::move(reply));
  // No message about these jobs may overtake the answer that contains their ids.
  for (const JobId& id : followed) {
    if (Job* job = tables_.jobs.find(id)) ClientStreams::hold(*job, from, leaves_after);
  }
  for (const JobId& id : ended) find_result(from, 0, {id, true, leaves_after}, now, out);
}

void ClientRequests::on(const Peer& from, const protocol::Attach& message, Instant now, Outbox& out) {
  Job* job = tables_.jobs.find(message.job);
  if (job == nullptr) {
    find_result(from, message.request, {message.job, true, 0}, now, out);
    return;
  }
  const std::shared_ptr<Client> client = tables_.streams.client(from);
  const StreamStart start{message.text_offset, message.text_digest, job->accepted_sequence};
  if (followers_.follow(*job, client, start, now)) return;
  refuse_to(from, message.request,
            refuse(ErrorCode::kBusy, "the job has its maximum of " +
                                         std::to_string(tables_.options.subscriptions_per_job_max) + " followers"),
            out);
}

void ClientRequests::on(const Peer& from, const protocol::Cancel& message, Instant now, Outbox& out) {
  if (Job* job = tables_.jobs.find(message.job)) endings_.cancel(*job, "cancelled by the client", now);
  find_result(from, message.request, {message.job, false, 0}, now, out);
}

void ClientRequests::on(const Peer& from, const protocol::GetJob& message, Instant now, Outbox& out) {
  const Job* job = tables_.jobs.find(message.job);
  if (job == nullptr) {
    find_result(from, message.request, {message.job, false, 0}, now, out);
    return;
  }
  protocol::JobResult result = describe(*job);
  const Place place = place_of(*job, now);
  result.position = place.position;
  result.eta_ms = place.eta_ms;
  out.send_after(job->accepted_sequence, from, protocol::JobStatus{message.request, std::move(result)});
}

void ClientRequests::on(const Peer& from, const protocol::Credit& message, Instant now, Outbox& out) {
  if (tables_.streams.on_credit(from, message, now)) resume_clients(now, out);
}

void ClientRequests::find_result(const Peer& from, uint64_t request, AskedResult asked, Instant now, Outbox& out) {
  if (const RecentResults::Entry* known = tables_.known.results().find(asked.job, tables_.store.time_ms(now))) {
    send_result({from, request, asked}, known->result, std::max(known->sequence, asked.after), out);
    return;
  }
  tables_.questions.ask({from, request, asked}, journal::FindResult{asked.job}, out);
}

void ClientRequests::send_result(const StoreQuestion& asker, const SharedResult& result, uint64_t after, Outbox& out) {
  if (std::get<AskedResult>(asker.what).follow) {
    tables_.streams.send_result(tables_.streams.client(asker.peer), result, after);
  } else {
    out.send_after(after, asker.peer, protocol::JobStatus{asker.request, *result});
  }
}

void ClientRequests::on_answer(const StoreQuestion& asker, const AskedResult& what, journal::ResultFound answer,
                               Outbox& out) {
  if (answer.result) {
    send_result(asker, std::make_shared<const protocol::JobResult>(std::move(*answer.result)), what.after, out);
  } else {
    refuse_to(asker.peer, asker.request, unknown_job(what.job), out);
  }
}

void ClientRequests::resume_clients(Instant now, Outbox& out) {
  for (auto& [client, jobs] : tables_.streams.take_resumed(now)) {
    for (const JobId& id : jobs) {
      if (Job* job = tables_.jobs.find(id)) {
        tables_.streams.touch(*job);
      } else {
        find_result(client->peer, 0, {id, true, 0}, now, out);
      }
    }
  }
}

}  // namespace optserve::scheduler
