#include "client/scheduler_set.h"

#include <algorithm>
#include <map>
#include <utility>

#include "client/scheduler_choice.h"

namespace optserve::client {
namespace {

using protocol::JobResult;
using protocol::Message;

constexpr size_t kJobHomesMax = 65'536;

Result<JobResult> job_result(Result<Message> answer) {
  if (!answer.ok()) return answer.refusal();
  if (auto* status = std::get_if<protocol::JobStatus>(&answer.value())) return std::move(status->result);
  return refuse(ErrorCode::kDataCorrupt,
                "the scheduler answered with " + std::string(protocol::message_name(answer.value())));
}

std::string joined(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : ", ") + item;
  return text;
}

}  // namespace

void JobHomes::remember(const JobId& job, size_t scheduler) {
  if (!homes_.insert_or_assign(job, scheduler).second) return;
  oldest_first_.push_back(job);
  if (oldest_first_.size() <= jobs_max_) return;
  homes_.erase(oldest_first_.front());
  oldest_first_.pop_front();
}

std::optional<size_t> JobHomes::find(const JobId& job) const {
  const auto found = homes_.find(job);
  if (found == homes_.end()) return std::nullopt;
  return found->second;
}

// One submit().
struct SchedulerSet::Batch {
  std::vector<protocol::JobSpec> jobs;
  std::vector<protocol::SubmitOutcome> outcomes;
  std::vector<uint64_t> tried;  // by job: bit i stands for the i-th scheduler
  JobStream stream;
  Instant deadline;
  Submitted done;
  std::vector<Follow> follows{};
  size_t open_parts = 1;  // one for submit() itself
  bool has_outcome = false;
  std::optional<Refusal> failure{};

  void release() {
    if (--open_parts > 0) return;
    if (failure && !has_outcome) {
      done({*failure, {}});
    } else {
      done({std::move(outcomes), std::move(follows)});
    }
  }
};

// One question about a job whose scheduler may not be known.
struct SchedulerSet::Search {
  JobId job;
  FoundJob done;
  size_t open = 0;
  std::vector<std::pair<size_t, uint64_t>> requests{};  // scheduler, number
  std::vector<std::pair<size_t, Refusal>> refusals{};   // by scheduler
};

// One question to all schedulers.
struct SchedulerSet::Round {
  AllAnswered done;
  Answers<Message> answers{};
  size_t open = 0;
  size_t answered = 0;  // schedulers that answered themselves

  void release() {
    if (--open == 0) done(std::move(answers));
  }
};

SchedulerSet::SchedulerSet(const std::vector<std::string>& endpoints, const SessionOptions& options)
    : endpoints_(endpoints), homes_(kJobHomesMax) {
  for (size_t i = 0; i < endpoints_.size(); ++i) {
    SessionOptions one = options;
    one.port = static_cast<transport::PortId>(i);
    one.endpoint = endpoints_[i];
    one.seed += i;
    sessions_.push_back(std::make_unique<ClientSession>(one));
  }
}

// --- submit

void SchedulerSet::submit(std::vector<protocol::JobSpec> jobs, JobStream stream, Instant deadline, const Turn& turn,
                          Submitted done) {
  const size_t count = jobs.size();
  const auto batch =
      std::make_shared<Batch>(Batch{std::move(jobs), std::vector<protocol::SubmitOutcome>(count),
                                    std::vector<uint64_t>(count), std::move(stream), deadline, std::move(done)});
  std::vector<size_t> indices;
  for (size_t i = 0; i < count; ++i) {
    if (batch->jobs[i].key.empty()) batch->jobs[i].key = Id128::random().hex();
    indices.push_back(i);
  }
  dispatch(batch, indices, turn);
  batch->release();
}

// The first scheduler, in the job's order, that was not tried and that can be reached or may soon be.
size_t SchedulerSet::choose(const Batch& batch, size_t job, Instant now) const {
  if (sessions_.size() == 1) return 0;
  std::optional<size_t> last_resort;
  const protocol::JobSpec& spec = batch.jobs[job];
  for (const size_t scheduler : scheduler_order(spec.tenant, spec.key, endpoints_)) {
    if ((batch.tried[job] >> scheduler & 1) != 0) continue;
    if (!sessions_[scheduler]->is_down(now)) return scheduler;
    if (!last_resort) last_resort = scheduler;
  }
  check(last_resort.has_value(), "a job was returned although every scheduler had been tried");
  return *last_resort;
}

bool SchedulerSet::is_another_reachable(uint64_t tried) const {
  for (size_t i = 0; i < sessions_.size(); ++i) {
    if ((tried >> i & 1) == 0 && sessions_[i]->is_reachable()) return true;
  }
  return false;
}

void SchedulerSet::dispatch(const std::shared_ptr<Batch>& batch, const std::vector<size_t>& indices, const Turn& turn) {
  std::map<std::pair<size_t, uint64_t>, std::vector<size_t>> parts;
  for (const size_t i : indices) {
    const size_t scheduler = choose(*batch, i, turn.now);
    batch->tried[i] |= uint64_t{1} << scheduler;
    parts[{scheduler, batch->tried[i]}].push_back(i);
  }
  for (auto& [part, members] : parts) send_part(batch, part.first, part.second, std::move(members), turn);
}

void SchedulerSet::send_part(const std::shared_ptr<Batch>& batch, size_t scheduler, uint64_t tried,
                             std::vector<size_t> indices, const Turn& turn) {
  std::vector<protocol::JobSpec> jobs;
  for (const size_t i : indices) {
    // The job is kept as long as another scheduler may get it.
    jobs.push_back(sessions_.size() == 1 ? std::move(batch->jobs[i]) : batch->jobs[i]);
  }
  ++batch->open_parts;
  sessions_[scheduler]->submit(
      std::move(jobs), batch->stream, batch->deadline, turn,
      [this, batch, scheduler, indices = std::move(indices)](auto part, const Turn& then) {
        on_part(batch, scheduler, indices, std::move(part), then);
      },
      [this, tried] { return is_another_reachable(tried); });
}

void SchedulerSet::on_part(const std::shared_ptr<Batch>& batch, size_t scheduler, const std::vector<size_t>& indices,
                           ClientSession::Submission part, const Turn& turn) {
  std::vector<bool> is_returned(indices.size());
  std::vector<size_t> again;
  for (const size_t i : part.returned) {
    is_returned[i] = true;
    again.push_back(indices[i]);
  }
  for (size_t i = 0; i < indices.size(); ++i) {
    if (is_returned[i]) continue;
    protocol::SubmitOutcome& outcome = batch->outcomes[indices[i]];
    if (part.outcomes.ok()) {
      outcome = std::move(part.outcomes.value()[i]);
      batch->has_outcome = true;
      if (outcome.job && sessions_.size() > 1) homes_.remember(*outcome.job, scheduler);
    } else {
      batch->failure = part.outcomes.refusal();
      outcome.error = batch->failure->code;
      outcome.message = batch->failure->message;
    }
  }
  for (const ClientSession::FollowId id : part.follows) batch->follows.push_back({scheduler, id});
  if (!again.empty()) dispatch(batch, again, turn);
  batch->release();
}

// --- questions

void SchedulerSet::search(const JobId& job, const Message& about_job, Instant deadline, const Turn& turn,
                          FoundJob done) {
  const auto search = std::make_shared<Search>(Search{job, std::move(done)});
  const std::optional<size_t> home = homes_.find(job);
  for (size_t i = 0; i < sessions_.size(); ++i) {
    if (home && *home != i) continue;
    ++search->open;
    const uint64_t request = sessions_[i]->call(
        about_job, deadline, turn,
        [this, search, i](Result<Message> answer, const Turn& then) { on_found(*search, i, std::move(answer), then); },
        [weak = std::weak_ptr(search)] {
          const auto alive = weak.lock();
          return alive && !alive->refusals.empty();
        });
    search->requests.emplace_back(i, request);
  }
}

void SchedulerSet::on_found(Search& search, size_t scheduler, Result<Message> answer, const Turn& turn) {
  Result<JobResult> found = job_result(std::move(answer));
  --search.open;
  if (!found.ok()) {
    search.refusals.emplace_back(scheduler, found.refusal());
    if (search.open == 0) search.done(nowhere(search), scheduler, turn);
    return;
  }
  for (const auto& [other, request] : search.requests) {
    if (other != scheduler) sessions_[other]->forget(request);
  }
  if (sessions_.size() > 1) homes_.remember(search.job, scheduler);
  search.done(std::move(found), scheduler, turn);
}

Refusal SchedulerSet::nowhere(const Search& search) const {
  std::vector<std::string> ignorant, silent;
  for (const auto& [scheduler, refusal] : search.refusals) {
    if (refusal.code != ErrorCode::kNotFound && refusal.code != ErrorCode::kUnavailable) return refusal;
    (refusal.code == ErrorCode::kNotFound ? ignorant : silent).push_back(endpoints_[scheduler]);
  }
  if (silent.empty() || ignorant.empty()) return search.refusals.front().second;
  return refuse(ErrorCode::kUnavailable, "job " + search.job.hex() + " is not known to " + joined(ignorant) +
                                             "; no answer from " + joined(silent));
}

void SchedulerSet::ask_job(const JobId& job, const Message& about_job, Instant deadline, const Turn& turn,
                           JobAnswer done) {
  search(job, about_job, deadline, turn, [done = std::move(done)](Result<JobResult> answer, size_t, const Turn& then) {
    done(std::move(answer), then);
  });
}

// Attach itself is not answered while the job runs, so GetJob finds out whether the job is known, and to which
// scheduler.
void SchedulerSet::attach(const JobId& job, uint64_t text_offset, JobStream stream, Instant deadline, const Turn& turn,
                          Attached done) {
  search(job, protocol::GetJob{0, job}, deadline, turn,
         [=, this, stream = std::move(stream), done = std::move(done)](Result<JobResult> known, size_t scheduler,
                                                                       const Turn& then) {
           if (!known.ok()) return done(known.refusal(), then);
           done(Follow{scheduler, sessions_[scheduler]->follow(job, text_offset, stream, then)}, then);
         });
}

void SchedulerSet::ask_all(const MessageFor& message_for, Instant deadline, const Turn& turn, AllAnswered done) {
  const auto round = std::make_shared<Round>(Round{std::move(done)});
  round->open = 1;  // one for this function itself
  for (size_t i = 0; i < sessions_.size(); ++i) {
    std::optional<Message> message = message_for(endpoints_[i]);
    if (!message) continue;
    const size_t place = round->answers.size();
    round->answers.push_back({endpoints_[i], refuse(ErrorCode::kUnavailable, "not asked yet")});
    ++round->open;
    sessions_[i]->call(
        std::move(*message), deadline, turn,
        [round, place](Result<Message> answer, const Turn&) {
          round->answered += answer.ok() || answer.refusal().code != ErrorCode::kUnavailable;
          round->answers[place].answer = std::move(answer);
          round->release();
        },
        [weak = std::weak_ptr(round)] {
          const auto alive = weak.lock();
          return alive && alive->answered > 0;
        });
  }
  round->release();
}

Duration SchedulerSet::unreachable_for(const JobId& job, Instant now) const {
  if (const std::optional<size_t> home = homes_.find(job)) return sessions_[*home]->unreachable_for(now);
  Duration shortest = sessions_.front()->unreachable_for(now);
  for (const auto& session : sessions_) shortest = std::min(shortest, session->unreachable_for(now));
  return shortest;
}

void SchedulerSet::close(const Refusal& why, const Turn& turn) {
  for (const auto& session : sessions_) session->close(why, turn);
}

// --- connections

void SchedulerSet::on_message(const Peer& from, Message message, Instant now, Outbox& out) {
  sessions_.at(static_cast<size_t>(from.port))->on_message(from, std::move(message), now, out);
}

void SchedulerSet::on_undeliverable(const Peer& to, Message message, bool slow, Instant now, Outbox& out) {
  sessions_.at(static_cast<size_t>(to.port))->on_undeliverable(to, std::move(message), slow, now, out);
}

void SchedulerSet::on_connected(transport::PortId port, Instant now, Outbox& out) {
  sessions_.at(static_cast<size_t>(port))->on_connected(port, now, out);
}

void SchedulerSet::on_not_let_in(transport::PortId port, const std::string& why, Instant now, Outbox& out) {
  sessions_.at(static_cast<size_t>(port))->on_not_let_in(port, why, now, out);
}

void SchedulerSet::on_tick(Instant now, Outbox& out) {
  for (const auto& session : sessions_) session->on_tick(now, out);
}

Duration SchedulerSet::tick_interval() const {
  Duration interval = sessions_.front()->tick_interval();
  for (const auto& session : sessions_) interval = std::min(interval, session->tick_interval());
  return interval;
}

}  // namespace optserve::client
