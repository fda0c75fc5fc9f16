// What operators ask: to hold and release queues, lists, groups, dead letters, purges and backups.
#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "protocol/codec.h"
#include "scheduler/scheduler_service.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kNamesShown = 32;  // of what could have been meant

Refusal unknown(const char* what, const std::string& name, const std::vector<std::string>& known) {
  std::string text;
  for (size_t i = 0; i < known.size() && i < kNamesShown; ++i) text += (i == 0 ? "" : ", ") + known[i];
  if (known.size() > kNamesShown) text += ", …";
  return refuse(ErrorCode::kNotFound, std::string(what) + " " + name.substr(0, limits::kModelNameBytesMax) +
                                          " is not known; known: " + (text.empty() ? "none" : text));
}

protocol::QueueMode mode_of(protocol::ControlAction action) {
  switch (action) {
    case protocol::ControlAction::kPause:
      return protocol::QueueMode::kPaused;
    case protocol::ControlAction::kDrain:
      return protocol::QueueMode::kDraining;
    case protocol::ControlAction::kResume:
      break;
  }
  return protocol::QueueMode::kOpen;
}

}  // namespace

Status SchedulerService::check_control(const protocol::Control& message) const {
  if (modes_.is_held(message.scope, message.name)) return ok_status();
  switch (message.scope) {
    case protocol::ControlScope::kQueue:
      if (message.name.empty()) return ok_status();
      return refuse(ErrorCode::kBadRequest, "name: expected none, since the whole queue is meant");
    case protocol::ControlScope::kModel: {
      std::vector<std::string> known = known_models();
      if (std::find(known.begin(), known.end(), message.name) != known.end()) return ok_status();
      return unknown("model", message.name, known);
    }
    case protocol::ControlScope::kService:
      break;
  }
  std::vector<std::string> known;
  for (const ServiceEntry* entry : services_.all()) {
    if (entry->info.name == message.name || entry->info.instance.hex() == message.name) return ok_status();
    known.push_back(entry->info.name);
  }
  return unknown("service", message.name, known);
}

std::vector<std::string> SchedulerService::known_models() const {
  std::vector<std::string> known = services_.model_names();
  const std::vector<std::string> held = modes_.held_models();
  known.insert(known.end(), options_.models.begin(), options_.models.end());
  known.insert(known.end(), held.begin(), held.end());
  for (const auto& [name, queue] : queues_.all()) {
    if (!name.empty()) known.push_back(name);  // else it is that of conversions
  }
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  return known;
}

void SchedulerService::on(const Peer& from, const protocol::Control& message, Instant now, Outbox& out) {
  Status status = check_control(message);
  const protocol::QueueMode mode = mode_of(message.action);
  if (status.ok()) status = modes_.set(message.scope, message.name, mode);
  if (!status.ok()) {
    refuse_to(from, message.request, status.refusal(), out);
    return;
  }
  log_info("mode_set",
           {{"scope", static_cast<int>(message.scope)}, {"name", message.name}, {"mode", queue_mode_name(mode)}});
  const uint64_t sequence = store_.append(journal::ModeSet{message.scope, message.name, mode});
  for (ServiceEntry* entry : services_.all()) {
    entry->held = modes_.holds_service(entry->info.instance.hex(), entry->info.name);
    queues_.refresh(*entry);
  }
  queues_.want_all();
  out.send_after(sequence, from, system_status(message.request, now));
}

void SchedulerService::on(const Peer& from, const protocol::ListJobs& message, Instant now, Outbox& out) {
  if (message.limit < 1 || message.limit > limits::kJobsPerListMax) {
    refuse_to(from, message.request,
              refuse(ErrorCode::kBadRequest, "limit: expected 1 to " + std::to_string(limits::kJobsPerListMax) +
                                                 ", found " + std::to_string(message.limit)),
              out);
    return;
  }
  if (lister_.scans() + questions_.count<AskedList>() >= options_.lists_max) {
    refuse_to(from, message.request, refuse(ErrorCode::kBusy, "too many lists are being made; try again soon"), out);
    return;
  }
  JobScan scan;
  scan.peer = from;
  scan.asked = message;
  if (!message.filter.job && scan.wants_open()) {
    lister_.start(std::move(scan));
    return;
  }
  const Job* job = message.filter.job ? jobs_.find(*message.filter.job) : nullptr;
  if (job != nullptr && scan.wants_open()) JobLister::add(scan, *job);
  on_scanned(std::move(scan), now, out);
}

void SchedulerService::on_scanned(JobScan scan, Instant, Outbox& out) {
  if (scan.wants_ended()) {
    journal::ListEnded question{scan.asked.filter, scan.asked.after, scan.asked.limit};
    ask_store({scan.peer, scan.asked.request, AskedList{std::move(scan.open), scan.more, scan.asked.limit}},
              std::move(question), out);
    return;
  }
  protocol::JobList list = merged_list(std::move(scan.open), {}, scan.asked.limit);
  list.request = scan.asked.request;
  list.more = list.more || scan.more;
  out.send_after(scan.sequence, scan.peer, std::move(list));
}

void SchedulerService::on_answer(const StoreQuestion& asker, AskedList& what, journal::EndedListed answer,
                                 Outbox& out) {
  protocol::JobList list = merged_list(std::move(what.open), std::move(answer.jobs), what.limit);
  list.request = asker.request;
  list.more = list.more || what.more || answer.more;
  out.send(asker.peer, std::move(list));
}

void SchedulerService::on(const Peer& from, const protocol::Requeue& message, Instant, Outbox& out) {
  if (const Job* job = jobs_.find(message.job)) {  // put back before, or never dead
    out.send_after(job->accepted_sequence, from, protocol::JobStatus{message.request, describe(*job)});
    return;
  }
  if (store_.is_full()) {
    refuse_to(from, message.request, refuse(ErrorCode::kStorageFull, "the journal's disk is full"), out);
  } else if (questions_.count<AskedPurge>() > 0) {
    refuse_to(from, message.request, refuse(ErrorCode::kBusy, "a purge runs; try again later"), out);
  } else if (requeues_.contains(message.job)) {
    return;  // the repetition of an unanswered request finds the job in the queue
  } else if (ask_store({from, message.request, AskedRequeue{message.job}}, journal::FindDead{message.job}, out)) {
    requeues_.insert(message.job);
  }
}

void SchedulerService::on_answer(const StoreQuestion& asker, const AskedRequeue& what, journal::DeadFound answer,
                                 Instant now, Outbox& out) {
  Status status = ok_status();
  if (!answer.job) {
    status = refuse(ErrorCode::kNotFound, "job " + what.job.hex() + " is not dead, or was forgotten");
  } else {
    status = check_put_back(answer.job->spec);
  }
  if (!status.ok()) {
    refuse_to(asker.peer, asker.request, status.refusal(), out);
    return;
  }
  Job& job = put_back(answer.order, std::move(*answer.job), now);
  out.send_after(job.accepted_sequence, asker.peer, protocol::JobStatus{asker.request, describe(job)});
  begin(job, now);
}

// Asked when the job is about to join: others may have taken the room since the request.
Status SchedulerService::check_put_back(const protocol::JobSpec& spec) {
  if (Status status = modes_.accepts(spec.model); !status.ok()) return status;
  const ModelQueue& queue = queues_.of(spec);
  const auto full = bounds_.check(spec, cost_of(spec, queue), QueueBounds::bytes_of(spec, 0), queue);
  return full ? refuse(ErrorCode::kBusy, full->message) : ok_status();
}

Job& SchedulerService::put_back(uint64_t dead_order, journal::Accepted record, Instant now) {
  auto owned = std::make_unique<Job>();
  owned->id = record.job;
  owned->order = record.order = next_order_++;
  owned->accepted_wall_ms = record.accepted_wall_ms = wall_ms(now);
  owned->payload_sha256 = record.payload_sha256;
  owned->spec = record.spec;
  set_times(*owned, now, 0);
  if (record.encoded_spec.empty()) record.encoded_spec = protocol::encode_job_spec(record.spec);
  Job& job = add_job(std::move(owned));
  job.accepted_sequence = store_.append(journal::Requeued{dead_order, std::move(record)});
  recent_.forget(job.id);
  note_open(job);
  log_info("job_put_back", {{"job", job.id.hex()}});
  return job;
}

void SchedulerService::on(const Peer& from, const protocol::Purge& message, Instant, Outbox& out) {
  const protocol::JobFilter& filter = message.filter;
  if (filter == protocol::JobFilter{}) {
    refuse_to(from, message.request, refuse(ErrorCode::kBadRequest, "filter: expected at least one condition"), out);
  } else if (filter.state && !protocol::is_terminal(*filter.state)) {
    refuse_to(from, message.request,
              refuse(ErrorCode::kBadRequest, "filter: state " + std::string(job_state_name(*filter.state)) +
                                                 ", but only jobs that have ended can be purged"),
              out);
  } else {
    ask_store({from, message.request, AskedPurge{}}, journal::PurgeEnded{filter}, out);
  }
}

void SchedulerService::on_answer(const StoreQuestion& asker, const journal::EndedPurged& answer, Outbox& out) {
  for (const journal::KnownKey& known : answer.forgotten) {
    if (jobs_.find(known.job) != nullptr) continue;  // put back meanwhile
    recent_.forget(known.job);
    keys_.forget(known.tenant, known.key, known.job);
  }
  forget_group_members();
  log_info("jobs_purged", {{"jobs", answer.forgotten.size()}});
  out.send(asker.peer, protocol::Purged{asker.request, static_cast<int64_t>(answer.forgotten.size())});
}

void SchedulerService::on(const Peer& from, const protocol::Backup& message, Instant, Outbox& out) {
  if (questions_.count<AskedBackup>() > 0) {
    refuse_to(from, message.request, refuse(ErrorCode::kBusy, "a backup is being made; try again later"), out);
    return;
  }
  ask_store({from, message.request, AskedBackup{}}, journal::BackUp{}, out);
}

void SchedulerService::on(const Peer& from, const protocol::GetGroup& message, Instant, Outbox& out) {
  if (message.group.empty() || message.group.size() > limits::kGroupBytesMax ||
      message.tenant.size() > limits::kTenantBytesMax) {
    refuse_to(from, message.request, refuse(ErrorCode::kBadRequest, "group: expected the name of a group"), out);
    return;
  }
  if (!message.cancel) {
    send_group(from, message, out);
    return;
  }
  if (group_cancels_.size() >= options_.group_cancels_max) {
    refuse_to(from, message.request, refuse(ErrorCode::kBusy, "too many groups are being cancelled; try again soon"),
              out);
    return;
  }
  group_cancels_.push_back({from, message, next_order_});
}

void SchedulerService::send_group(const Peer& to, const protocol::GetGroup& asked, Outbox& out) {
  protocol::GroupStatus status;
  status.request = asked.request;
  uint64_t after = 0;
  if (const JobGroup* group = groups_.find(asked.tenant, asked.group)) {
    const auto count = [&](protocol::JobState state) { return group->ended[static_cast<size_t>(state)]; };
    status.open = static_cast<int64_t>(group->open.size());
    status.succeeded = count(protocol::JobState::kSucceeded);
    status.failed = count(protocol::JobState::kFailed);
    status.cancelled = count(protocol::JobState::kCancelled);
    status.expired = count(protocol::JobState::kExpired);
    status.dead = count(protocol::JobState::kDead);
    after = group->sequence;
  }
  out.send_after(after, to, std::move(status));
}

void SchedulerService::cancel_groups(Instant now, Outbox& out) {
  size_t budget = options_.operator_jobs_per_turn;
  while (!group_cancels_.empty()) {
    const GroupCancel& cancel = group_cancels_.front();
    // Jobs that came after the request are not meant.
    for (const JobGroup* group = groups_.find(cancel.asked.tenant, cancel.asked.group);
         group != nullptr && !group->open.empty() && group->open.begin()->first < cancel.before_order;
         group = groups_.find(cancel.asked.tenant, cancel.asked.group)) {
      if (budget-- == 0) return;
      finish(*group->open.begin()->second,
             {protocol::JobState::kCancelled, protocol::FinishReason::kCancelled, ErrorCode::kCancelled,
              "cancelled with its group"},
             now);
    }
    send_group(cancel.peer, cancel.asked, out);
    group_cancels_.pop_front();
  }
}

void SchedulerService::work_for_operators(Instant now, Outbox& out) {
  cancel_groups(now, out);
  for (JobScan& scan : lister_.step(10 * options_.operator_jobs_per_turn)) on_scanned(std::move(scan), now, out);
}

}  // namespace optserve::scheduler
