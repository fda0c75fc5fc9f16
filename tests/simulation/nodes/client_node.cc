#include "simulation/nodes/client_node.h"

#include <algorithm>
#include <set>
#include <utility>

namespace optserve::simulation {
namespace {

constexpr seconds kAgain{1};
constexpr size_t kBulkBatch = 64;

}  // namespace

std::unique_ptr<transport::Service> SessionProcess::make_service() {
  client::SessionOptions options;
  options.endpoint = "simulated";
  options.seed = env_.dice.number();
  auto session = std::make_unique<client::ClientSession>(options);
  session_ = session.get();
  return session;
}

client::JobStream watching(const Ledger& ledger, const Ledger::Entry& entry) {
  struct Seen {
    std::string text;
    bool ended = false;
  };
  client::JobStream watched;
  const auto seen = std::make_shared<Seen>();
  watched.on_text = [&ledger, seen, spec = entry.spec](std::string_view piece, const protocol::JobEvent& event) {
    if (event.text_offset != seen->text.size() || seen->ended) {
      ledger.fail(Invariant::kStreamWhole, "a piece of " + spec->key + " is not where it belongs");
    }
    seen->text += piece;
    ledger.check_stream(*spec, seen->text);
  };
  watched.on_finished = [&ledger, seen, spec = entry.spec](const protocol::JobResult& result) {
    if (std::exchange(seen->ended, true)) ledger.fail(Invariant::kOneEnd, "two ends of " + spec->key);
    ledger.check_result(*spec, result);
  };
  watched.on_lost = [&ledger, job = entry.id](const JobId&, const Refusal& why) {
    if (why.code != ErrorCode::kBusy) ledger.check_lost(job);  // kBusy: it has its maximum of followers
  };
  return watched;
}

ClientNode::ClientNode(Environment& environment, Network& network, Ledger& ledger, std::vector<PlannedJob> plan)
    : SessionProcess(environment, network), ledger_(ledger) {
  kind_ = "client";
  for (PlannedJob& planned : plan) {
    Job& job = jobs_.emplace_back();
    job.next_submit = planned.submit_at;
    job.plan = std::move(planned);
  }
}

bool ClientNode::is_done() const {
  return std::all_of(jobs_.begin(), jobs_.end(), [](const Job& job) { return job.done; });
}

std::string ClientNode::unfinished() const {
  std::string text;
  for (const Job& job : jobs_) {
    if (job.done) continue;
    text += " " + job.plan.spec.tenant + '/' + job.plan.spec.key + "(" + (job.id ? job.id->hex() : "no id") +
            (job.submitting ? ", submitting" : "") + (job.followed ? ", followed" : "") + ")";
  }
  return text;
}

void ClientNode::on_crash() {
  SessionProcess::on_crash();
  for (Job& job : jobs_) {
    job.submitting = job.followed = false;
    job.next_submit = std::max(job.plan.submit_at, env_.now());
    if (env_.dice.chance(0.5)) job.text.clear();
    if (env_.dice.chance(0.5)) job.id.reset(), job.text.clear();
  }
}

void ClientNode::on_turn() {
  std::vector<size_t> due;
  for (size_t i = 0; i < jobs_.size(); ++i) {
    Job& job = jobs_[i];
    if (job.done) continue;
    if (!job.id && !job.submitting && env_.now() >= job.next_submit) due.push_back(i);
    if (job.id && !job.followed) follow(i);
    if (job.id && !job.cancelled && env_.now() >= job.plan.cancel_at) cancel(i);
  }
  std::vector<size_t> together;
  std::set<std::string> keys;
  for (const size_t i : due) {
    const protocol::JobSpec& spec = jobs_[i].plan.spec;
    if (env_.dice.chance(0.7) && keys.insert(spec.tenant + '/' + spec.key).second) {
      together.push_back(i);
    } else {
      submit({i});
    }
  }
  if (!together.empty()) submit(together);
  if (env_.faulty && env_.dice.chance(0.01)) follow_a_stranger();
  if (env_.faulty && env_.dice.chance(0.01)) ask_something();
}

void ClientNode::submit(const std::vector<size_t>& indices) {
  auto batch = std::make_shared<Batch>();
  batch->jobs = indices;
  std::vector<protocol::JobSpec> specs;
  for (const size_t i : indices) {
    jobs_[i].submitting = true;
    specs.push_back(jobs_[i].plan.spec);
  }
  const client::Turn turn{local_now(), out()};
  session_->submit(std::move(specs), stream(batch), local_now() + kCallTimeout, turn,
                   [this, batch](const auto& submission, const auto&) { on_submitted(*batch, submission.outcomes); });
}

void ClientNode::on_submitted(Batch& batch, const Result<std::vector<protocol::SubmitOutcome>>& outcomes) {
  for (size_t i = 0; i < batch.jobs.size(); ++i) {
    Job& job = jobs_[batch.jobs[i]];
    job.submitting = false;
    job.next_submit = env_.now() + kAgain;
    if (!outcomes.ok()) continue;
    const protocol::SubmitOutcome& outcome = outcomes.value().at(i);
    on_outcome(batch.jobs[i], outcome);
    if (outcome.job) batch.seen[*outcome.job] = {batch.jobs[i], "", false};
  }
}

void ClientNode::on_outcome(size_t index, const protocol::SubmitOutcome& outcome) {
  Job& job = jobs_[index];
  if (outcome.job) {
    ledger_.on_outcome(job.plan.spec, outcome);
    job.id = outcome.job;
    job.followed = !outcome.unfollowed;
    job.text.clear();
    return;
  }
  switch (outcome.error.value_or(ErrorCode::kInternal)) {
    case ErrorCode::kBusy:
    case ErrorCode::kUnavailable:
    case ErrorCode::kUnknownModel:
    case ErrorCode::kStorageFull:
      return;                           // again, a little later
    case ErrorCode::kDeadlineExceeded:  // the slow workers of a world may make any job wait for minutes
      job.done = true;
      return;
    case ErrorCode::kIdempotencyConflict:
      job.done = true;
      if (!job.plan.may_conflict) ledger_.fail(Invariant::kKeyNamesOneJob, "a conflict: " + outcome.message);
      return;
    default:
      ledger_.fail(Invariant::kAckedJobKept, "a good job is refused: " + outcome.message);
  }
}

// By its id, from where the text that was kept ends.
void ClientNode::follow(size_t index) {
  Job& job = jobs_[index];
  job.followed = true;
  auto batch = std::make_shared<Batch>();
  batch->jobs = {index};
  batch->seen[*job.id] = {index, job.text, false};
  session_->follow(*job.id, job.text.size(), stream(batch), {local_now(), out()});
}

void ClientNode::follow_a_stranger() {
  const auto open = ledger_.open_entries();
  if (open.empty()) return;
  const Ledger::Entry* entry = open[env_.dice.below(open.size())];
  if (!entry->acked) return;
  session_->follow(entry->id, 0, watching(ledger_, *entry), {local_now(), out()});
}

void ClientNode::cancel(size_t index) {
  Job& job = jobs_[index];
  job.cancelled = true;
  session_->call(protocol::Cancel{0, *job.id}, local_now() + kCallTimeout, {local_now(), out()},
                 [this, id = *job.id](const Result<protocol::Message>& answer, const client::Turn&) {
                   if (!answer.ok() && answer.refusal().code == ErrorCode::kNotFound) ledger_.check_lost(id);
                 });
}

void ClientNode::ask_something() {
  const client::Turn turn{local_now(), out()};
  if (jobs_.empty() || env_.dice.chance(0.3)) {
    session_->call(protocol::GetStatus{}, local_now() + kCallTimeout, turn, [](const auto&, const auto&) {});
    return;
  }
  const Job& job = jobs_[env_.dice.below(jobs_.size())];
  if (!job.id) return;
  session_->call(protocol::GetJob{0, *job.id}, local_now() + kCallTimeout, turn,
                 [this, id = *job.id](const Result<protocol::Message>& answer, const client::Turn&) {
                   if (!answer.ok() && answer.refusal().code == ErrorCode::kNotFound) ledger_.check_lost(id);
                 });
}

client::JobStream ClientNode::stream(std::shared_ptr<Batch> batch) {
  client::JobStream stream;
  stream.on_text = [this, batch](std::string_view piece, const protocol::JobEvent& event) {
    on_text(*batch, piece, event);
  };
  stream.on_finished = [this, batch](const protocol::JobResult& result) { on_finished(*batch, result); };
  stream.on_lost = [this, batch](const JobId& id, const Refusal& why) {
    const auto seen = batch->seen.find(id);  // not there if it is told before the answer to the submit
    Job* job = seen == batch->seen.end() ? nullptr : &jobs_[seen->second.job];
    if (why.code == ErrorCode::kBusy) {  // the maximum of followers: again, a little later
      if (job != nullptr) job->followed = false;
      return;
    }
    ledger_.check_lost(id);
    if (job != nullptr) job->done = true;
  };
  return stream;
}

ClientNode::Seen& ClientNode::seen_of(Batch& batch, const JobId& job) const {
  const auto found = batch.seen.find(job);
  if (found == batch.seen.end()) ledger_.fail(Invariant::kStreamWhole, "an event of a job that is not followed");
  return found->second;
}

void ClientNode::on_text(Batch& batch, std::string_view piece, const protocol::JobEvent& event) {
  Seen& seen = seen_of(batch, event.job);
  Job& job = jobs_[seen.job];
  if (seen.ended) ledger_.fail(Invariant::kStreamWhole, "text after the end of " + job.plan.spec.key);
  if (event.text_offset != seen.text.size()) {
    ledger_.fail(Invariant::kStreamWhole, "position " + std::to_string(event.text_offset) + " of " + job.plan.spec.key +
                                              ", expected " + std::to_string(seen.text.size()));
  }
  seen.text += piece;
  ledger_.check_stream(job.plan.spec, seen.text);
  job.text = seen.text;
}

void ClientNode::on_finished(Batch& batch, const protocol::JobResult& result) {
  Seen& seen = seen_of(batch, result.job);
  Job& job = jobs_[seen.job];
  if (std::exchange(seen.ended, true)) ledger_.fail(Invariant::kOneEnd, "two ends of " + job.plan.spec.key);
  ledger_.check_result(job.plan.spec, result);
  if (result.state == protocol::JobState::kSucceeded && seen.text != result.text) {
    ledger_.fail(Invariant::kStreamWhole, "the stream of " + job.plan.spec.key + " and its result differ");
  }
  job.done = true;
}

BulkClientNode::BulkClientNode(Environment& environment, Network& network, Ledger& ledger, uint64_t& next_job)
    : SessionProcess(environment, network), ledger_(ledger), next_job_(next_job) {
  kind_ = "client";
}

void BulkClientNode::on_crash() {
  SessionProcess::on_crash();
  again_.clear();
  for (const auto& [index, unused] : open_) again_.push_back(index);
}

void BulkClientNode::on_turn() {
  const uint64_t share = env_.settings.open_jobs / env_.settings.clients;
  std::vector<uint64_t> batch;
  const auto add = [&](uint64_t index) {
    batch.push_back(index);
    if (batch.size() == kBulkBatch) submit(std::exchange(batch, {}));
  };
  if (again_.size() > open_.size()) ledger_.fail(Invariant::kBounded, "a client submits jobs more than once at a time");
  for (const uint64_t index : std::exchange(again_, {})) add(index);
  while (open_.size() + batch.size() < share && next_job_ < env_.settings.jobs) add(next_job_++);
  if (!batch.empty()) submit(std::move(batch));
}

void BulkClientNode::submit(std::vector<uint64_t> indices) {
  auto batch = std::make_shared<Batch>();
  batch->number = ++batches_;
  std::vector<protocol::JobSpec> specs;
  for (const uint64_t index : indices) {
    open_[index] = batch->number;
    specs.push_back(large_job(env_, index));
  }
  batch->jobs = std::move(indices);
  client::JobStream stream;
  stream.on_finished = [this](const protocol::JobResult& result) {
    const uint64_t index = std::stoull(result.key.substr(1));
    ledger_.check_result(large_job(env_, index), result);
    open_.erase(index);
  };
  stream.on_lost = [this, batch](const JobId&, const Refusal&) { on_lost(*batch); };
  const client::Turn turn{local_now(), out()};
  session_->submit(std::move(specs), std::move(stream), local_now() + kCallTimeout, turn,
                   [this, batch](const auto& submission, const auto&) {
                     const auto& outcomes = submission.outcomes;
                     batch->ids.resize(batch->jobs.size());
                     for (size_t i = 0; i < batch->jobs.size(); ++i) {
                       if (outcomes.ok() && outcomes.value()[i].job) {
                         batch->ids[i] = *outcomes.value()[i].job;
                       } else {
                         submit_again(*batch, i);
                       }
                     }
                   });
}

// A result has expired before it was fetched. Which one is not said: those that are really gone are submitted again.
void BulkClientNode::on_lost(const Batch& batch) {
  for (size_t i = 0; i < batch.ids.size(); ++i) {
    if (batch.ids[i] != JobId{} && ledger_.is_gone(batch.ids[i])) submit_again(batch, i);
  }
}

// Once for each time that it was submitted.
void BulkClientNode::submit_again(const Batch& batch, size_t place) {
  const auto found = open_.find(batch.jobs[place]);
  if (found == open_.end() || found->second != batch.number) return;
  found->second = 0;
  again_.push_back(found->first);
}

}  // namespace optserve::simulation
