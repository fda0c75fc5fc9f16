#include "scheduler/operators/operator_requests.h"

#include <algorithm>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "protocol/codec.h"
#include "scheduler/jobs/answers.h"

namespace optserve::scheduler {
namespace {

constexpr size_t kNamesShown = 32;  // of candidates that could have been meant

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

using transport::Outbox;
using transport::Peer;

Status OperatorRequests::check_control(const protocol::Control& message) const {
  if (tables_.modes.is_held(message.scope, message.name)) return ok_status();
  switch (message.scope) {
    case protocol::ControlScope::kQueue:
      if (message.name.empty()) return ok_status();
      return refuse(ErrorCode::kBadRequest, "name: expected none, since the whole queue is meant");
    case protocol::ControlScope::kModel: {
      std::vector<std::string> known = report_.known_models();
      if (std::find(known.begin(), known.end(), message.name) != known.end()) return ok_status();
      return unknown("model", message.name, known);
    }
    case protocol::ControlScope::kService:
      break;
  }
  std::vector<std::string> known;
  for (const ServiceEntry* entry : tables_.services.all()) {
    if (entry->info.name == message.name || entry->info.instance.hex() == message.name) return ok_status();
    known.push_back(entry->info.name);
  }
  return unknown("service", message.name, known);
}

void OperatorRequests::on(const Peer& from, const protocol::Control& message, Instant now, Outbox& out) {
  Status status = check_control(message);
  const protocol::QueueMode mode = mode_of(message.action);
  if (status.ok()) status = tables_.modes.set(message.scope, message.name, mode);
  if (!status.ok()) {
    refuse_to(from, message.request, status.refusal(), out);
    return;
  }
  log_info("mode_set",
           {{"scope", static_cast<int>(message.scope)}, {"name", message.name}, {"mode", queue_mode_name(mode)}});
  const uint64_t sequence = tables_.store.append(journal::ModeSet{message.scope, message.name, mode});
  for (ServiceEntry* entry : tables_.services.all()) {
    entry->held = tables_.modes.holds_service(entry->info.instance.hex(), entry->info.name);
    tables_.queues.refresh(*entry);
  }
  tables_.queues.want_all();
  out.send_after(sequence, from, report_.status(message.request, now));
}

void OperatorRequests::on(const Peer& from, const protocol::ListJobs& message, Outbox& out) {
  if (message.limit < 1 || message.limit > limits::kJobsPerListMax) {
    refuse_to(from, message.request,
              refuse(ErrorCode::kBadRequest, "limit: expected 1 to " + std::to_string(limits::kJobsPerListMax) +
                                                 ", found " + std::to_string(message.limit)),
              out);
    return;
  }
  if (tables_.known.lister().scans() + tables_.questions.count<AskedList>() >= tables_.options.lists_max) {
    refuse_to(from, message.request, refuse(ErrorCode::kBusy, "too many lists are being made; try again soon"), out);
    return;
  }
  JobScan scan;
  scan.peer = from;
  scan.asked = message;
  if (!message.filter.job && scan.wants_open()) {
    tables_.known.lister().start(std::move(scan));
    return;
  }
  const Job* job = message.filter.job ? tables_.jobs.find(*message.filter.job) : nullptr;
  if (job != nullptr && scan.wants_open()) JobLister::add(scan, *job);
  on_scanned(std::move(scan), out);
}

void OperatorRequests::on_scanned(JobScan scan, Outbox& out) {
  if (scan.wants_ended()) {
    journal::ListEnded question{scan.asked.filter, scan.asked.after, scan.asked.limit, scan.asked.newest_first};
    const uint64_t request = scan.asked.request;
    tables_.questions.ask({scan.peer, request, AskedList{std::move(scan.open), scan.more, std::move(scan.asked)}},
                          std::move(question), out);
    return;
  }
  protocol::JobList list = merged_list(std::move(scan.open), {}, scan.asked);
  list.request = scan.asked.request;
  list.more = list.more || scan.more;
  out.send_after(scan.sequence, scan.peer, std::move(list));
}

void OperatorRequests::on_answer(const StoreQuestion& asker, AskedList& what, journal::EndedListed answer,
                                 Outbox& out) {
  protocol::JobList list = merged_list(std::move(what.open), std::move(answer.jobs), what.asked);
  list.request = asker.request;
  list.more = list.more || what.more || answer.more;
  out.send(asker.peer, std::move(list));
}

void OperatorRequests::on(const Peer& from, const protocol::Requeue& message, Outbox& out) {
  if (const Job* job = tables_.jobs.find(message.job)) {  // it was put back before, or was never dead
    out.send_after(job->accepted_sequence, from, protocol::JobStatus{message.request, describe(*job)});
    return;
  }
  if (tables_.store.is_full()) {
    refuse_to(from, message.request, refuse(ErrorCode::kStorageFull, "the journal's disk is full"), out);
  } else if (tables_.questions.count<AskedPurge>() > 0) {
    refuse_to(from, message.request, refuse(ErrorCode::kBusy, "a purge runs; try again later"), out);
  } else if (requeues_.contains(message.job)) {
    return;  // the repetition of an unanswered request finds the job in the queue
  } else if (tables_.questions.ask({from, message.request, AskedRequeue{message.job}}, journal::FindDead{message.job},
                                   out)) {
    requeues_.insert(message.job);
  }
}

void OperatorRequests::on_answer(const StoreQuestion& asker, const AskedRequeue& what, journal::DeadFound answer,
                                 Instant now, Outbox& out) {
  requeues_.erase(what.job);
  Status status = ok_status();
  if (!answer.job) {
    status = refuse(ErrorCode::kNotFound, "job " + what.job.hex() + " is not dead, or was forgotten");
  } else {
    status = admission_.check_put_back(answer.job->spec);
  }
  if (!status.ok()) {
    refuse_to(asker.peer, asker.request, status.refusal(), out);
    return;
  }
  Job& job = admission_.put_back(answer.order, std::move(*answer.job), now);
  out.send_after(job.accepted_sequence, asker.peer, protocol::JobStatus{asker.request, describe(job)});
  preparation_.begin(job, now);
}

void OperatorRequests::on(const Peer& from, const protocol::Purge& message, Outbox& out) {
  const protocol::JobFilter& filter = message.filter;
  if (filter == protocol::JobFilter{}) {
    refuse_to(from, message.request, refuse(ErrorCode::kBadRequest, "filter: expected at least one condition"), out);
  } else if (filter.state && !protocol::is_terminal(*filter.state)) {
    refuse_to(from, message.request,
              refuse(ErrorCode::kBadRequest, "filter: state " + std::string(job_state_name(*filter.state)) +
                                                 ", but only jobs that have ended can be purged"),
              out);
  } else {
    tables_.questions.ask({from, message.request, AskedPurge{}}, journal::PurgeEnded{filter}, out);
  }
}

void OperatorRequests::on_answer(const StoreQuestion& asker, const journal::EndedPurged& answer, Outbox& out) {
  for (const journal::KnownKey& known : answer.forgotten) {
    if (tables_.jobs.find(known.job) == nullptr) tables_.known.purged(known);  // otherwise it was put back meanwhile
  }
  log_info("jobs_purged", {{"jobs", answer.forgotten.size()}});
  out.send(asker.peer, protocol::Purged{asker.request, static_cast<int64_t>(answer.forgotten.size())});
}

void OperatorRequests::on_answer(const StoreQuestion& asker, const journal::BackUpDone& answer, Outbox& out) {
  out.send(asker.peer, protocol::BackedUp{asker.request, answer.file, answer.bytes});
}

void OperatorRequests::on(const Peer& from, const protocol::Backup& message, Outbox& out) {
  if (tables_.questions.count<AskedBackup>() > 0) {
    refuse_to(from, message.request, refuse(ErrorCode::kBusy, "a backup is being made; try again later"), out);
    return;
  }
  tables_.questions.ask({from, message.request, AskedBackup{}}, journal::BackUp{}, out);
}

void OperatorRequests::on(const Peer& from, const protocol::GetGroup& message, Outbox& out) {
  if (message.group.empty() || message.group.size() > limits::kGroupBytesMax ||
      message.tenant.size() > limits::kTenantBytesMax) {
    refuse_to(from, message.request, refuse(ErrorCode::kBadRequest, "group: expected the name of a group"), out);
    return;
  }
  if (!message.cancel) {
    send_group(from, message, out);
    return;
  }
  if (group_cancels_.size() >= tables_.options.group_cancels_max) {
    refuse_to(from, message.request, refuse(ErrorCode::kBusy, "too many groups are being cancelled; try again soon"),
              out);
    return;
  }
  group_cancels_.push_back({from, message, tables_.jobs.next_order()});
}

void OperatorRequests::send_group(const Peer& to, const protocol::GetGroup& asked, Outbox& out) {
  protocol::GroupStatus status;
  status.request = asked.request;
  uint64_t after = 0;
  if (const JobGroup* group = tables_.known.groups().find(asked.tenant, asked.group)) {
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

void OperatorRequests::cancel_groups(Instant now, Outbox& out) {
  size_t budget = tables_.options.operator_jobs_per_turn;
  while (!group_cancels_.empty()) {
    const GroupCancel& cancel = group_cancels_.front();
    for (const JobGroup* group = tables_.known.groups().find(cancel.asked.tenant, cancel.asked.group);
         group != nullptr && !group->open.empty() && group->open.begin()->first < cancel.before_order;
         group = tables_.known.groups().find(cancel.asked.tenant, cancel.asked.group)) {
      if (budget-- == 0) return;
      endings_.cancel(*group->open.begin()->second, "cancelled with its group", now);
    }
    send_group(cancel.peer, cancel.asked, out);
    group_cancels_.pop_front();
  }
}

void OperatorRequests::work(Instant now, Outbox& out) {
  cancel_groups(now, out);
  for (JobScan& scan : tables_.known.lister().step(10 * tables_.options.operator_jobs_per_turn)) {
    on_scanned(std::move(scan), out);
  }
}

}  // namespace optserve::scheduler
