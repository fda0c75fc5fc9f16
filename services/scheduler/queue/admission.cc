#include "scheduler/queue/admission.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/trace_context.h"
#include "protocol/codec.h"
#include "protocol/validate.h"
#include "sampling/drawable.h"
#include "scheduler/access/rights.h"
#include "scheduler/jobs/job_times.h"
#include "scheduler/queue/places.h"

namespace optserve::scheduler {
namespace {

constexpr int64_t kCongestedRetryMs = 200;
constexpr int64_t kFullRetryMs = 5'000;
// A job is accepted if this many times its expected wait fit into what its own run leaves of its time. The rest is for
// what the estimate does not know: others that come with a larger share or a higher priority, a worker that is lost.
// After half of its time a queue begins to serve its newest jobs first, which lets the oldest run out of time.
constexpr double kWaitsThatFit = 3;
// Before a model's speed is measured, jobs with less time than this wait in small numbers only: for each worker so many
// more than run.
constexpr int64_t kPatientMs = 60'000;
constexpr size_t kUnmeasuredJobs = 16;
constexpr int64_t kUnmeasuredRetryMs = 500;

protocol::SubmitOutcome refused(const Refusal& why, int64_t retry_after_ms = 0) {
  protocol::SubmitOutcome outcome;
  outcome.error = why.code;
  outcome.message = why.message;
  outcome.retry_after_ms = retry_after_ms;
  return outcome;
}

SchedulerMetrics::Busy busy_reason(QueueBounds::Bound bound) {
  using Bound = QueueBounds::Bound;
  using Busy = SchedulerMetrics::Busy;
  switch (bound) {
    case Bound::kJobs:
      return Busy::kJobs;
    case Bound::kTokens:
      return Busy::kTokens;
    case Bound::kBytes:
      return Busy::kBytes;
    case Bound::kTenant:
      break;
  }
  return Busy::kTenant;
}

TenantLoad load_of(const protocol::JobSpec& spec, int64_t cost) {
  const bool converts = spec.kind == protocol::JobKind::kConvert;
  return {1, static_cast<int64_t>(QueueBounds::bytes_of(spec, 0)), converts ? 0 : cost, converts ? 1 : 0};
}

std::string payload_digest(const protocol::JobSpec& spec) {
  const auto digest = sha256(protocol::encode_job_payload(spec));
  return {digest.begin(), digest.end()};
}

std::string join_names(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

}  // namespace

void Admission::recover(journal::Recovery recovery) {
  tables_.jobs.set_next_order(recovery.next_order);
  const size_t keys = recovery.keys.size();
  tables_.known.recover(std::move(recovery.keys));
  for (const journal::ModeSet& held : recovery.modes) {
    if (!tables_.modes.set(held.scope, held.name, held.mode).ok()) log_warn("mode_lost", {{"name", held.name}});
  }
  for (journal::OpenJob& open : recovery.open) {
    recover(std::move(open));
    tables_.jobs.parked().park_excess();
  }
  if (tables_.was_restarted()) {
    log_info("jobs_recovered", {{"term", tables_.term}, {"open", tables_.jobs.size()}, {"keys", keys}});
  }
}

void Admission::recover(journal::OpenJob open) {
  const Instant now = tables_.options.start;
  auto owned = std::make_unique<Job>();
  owned->id = open.accepted.job;
  owned->order = open.accepted.order;
  owned->payload_sha256() = std::move(open.accepted.payload_sha256);
  owned->spec() = std::move(open.accepted.spec);
  // Log-probabilities are not in the journal: a job that wants them starts again, to the same tokens.
  if (!owned->spec().prompt_logprobs && !owned->wants_logprobs()) owned->output().ids = std::move(open.progress);
  owned->attempts().count = open.attempts;
  owned->attempts().crashes = open.crashes;
  owned->attempts().started = open.attempts > 0 || open.crashes > 0 || !owned->output().ids.empty();
  owned->attempts().losses = std::move(open.losses);
  owned->accepted_wall_ms = open.accepted.accepted_wall_ms;
  set_times(*owned, now, tables_.store.time_ms(now) - open.accepted.accepted_at_ms);
  Job& job = add(std::move(owned));
  tables_.known.opened(job);
  if (job.is_generation()) {
    tables_.tenants.take_tokens(job.spec().tenant, job.slot.cost,
                                job.times.begins_at - milliseconds(job.spec().delay_ms));
  }
  if (job.attempts().crashes >= tables_.options.crashes_max) {
    endings_.give_up(
        job, "the scheduler stopped " + std::to_string(job.attempts().crashes) + " times while this job was running",
        now);
  } else if (job.attempts().count >= job.spec().max_attempts) {
    // The process had ended between the record of the last loss and the record of the job's end that follows from it.
    endings_.give_up(job, last_attempt(job) + " was lost before the scheduler restarted", now);
  } else {
    preparation_.begin(job, now);
  }
}

Admission::Answer Admission::admit(protocol::JobSpec spec, Instant now) {
  if (Status status = protocol::validate(spec); !status.ok()) {
    tables_.metrics.refused.add();
    return {refused(status.refusal())};
  }
  Answer answer;
  if (const IdempotencyKeys::Entry* known = tables_.known.keys().find(spec.tenant, spec.key)) {
    if (known->payload.is_known() && known->payload != PayloadDigest(payload_digest(spec))) {
      tables_.metrics.conflicts.add();
      return {refused(refuse(ErrorCode::kIdempotencyConflict,
                             "key " + spec.key + " already names job " + known->job.hex() + " with another payload"))};
    }
    tables_.metrics.duplicates.add();
    answer.outcome.job = known->job;
    answer.outcome.duplicate = true;
    answer.after = known->sequence;  // also of a job that ended before its acceptance was on disk
    return answer;
  }
  Status status = tables_.modes.accepts(spec.model);
  if (status.ok()) status = check_model(spec, now);
  if (status.ok()) status = tables_.tenants.check_priority(spec.tenant, spec.priority);
  if (!status.ok()) {
    tables_.metrics.refused.add();
    return {refused(status.refusal())};
  }
  if (auto no_room = check_room(spec, now)) return {std::move(*no_room)};
  std::string encoded = protocol::encode_job_spec(spec);
  std::string payload = payload_digest(spec);
  Job& job = accept(std::move(spec), std::move(encoded), std::move(payload), now);
  answer.outcome.job = job.id;
  answer.after = job.accepted_sequence;
  preparation_.begin(job, now);
  const Place place = place_of(job, now);
  answer.outcome.position = place.position;
  answer.outcome.eta_ms = place.eta_ms;
  return answer;
}

protocol::SubmitOutcome Admission::busy(SchedulerMetrics::Busy why, const Refusal& refusal, int64_t retry_after_ms) {
  tables_.metrics.busy[static_cast<size_t>(why)].add();
  return refused(refusal, retry_after_ms);
}

// A refusal costs a few look-ups: neither a digest nor a record is made for it.
std::optional<protocol::SubmitOutcome> Admission::check_room(const protocol::JobSpec& spec, Instant now) {
  using Busy = SchedulerMetrics::Busy;
  if (tables_.store.is_full()) {
    return busy(
        Busy::kStorage,
        refuse(ErrorCode::kStorageFull, "the disk of the journal is full; nothing new is accepted until it has room"),
        kFullRetryMs);
  }
  if (tables_.store.is_congested()) {
    return busy(Busy::kJournal, refuse(ErrorCode::kBusy, "the journal is behind; try again soon"), kCongestedRetryMs);
  }
  const ModelQueue& queue = tables_.queues.of(spec);
  const int64_t cost = cost_of(spec, queue);
  const TenantLoad adds = load_of(spec, cost);
  if (auto over = check_quota(spec, queue, adds, now)) return over;
  if (auto full = tables_.bounds.check(spec, cost, static_cast<size_t>(adds.bytes), queue)) {
    return busy(busy_reason(full->bound), refuse(ErrorCode::kBusy, std::move(full->message)), full->retry_after_ms);
  }
  return check_time(spec, queue, cost);
}

std::optional<protocol::SubmitOutcome> Admission::check_quota(const protocol::JobSpec& spec, const ModelQueue& queue,
                                                              const TenantLoad& adds, Instant now) {
  using Busy = SchedulerMetrics::Busy;
  const TenantLoad held = tables_.bounds.load_of(spec.tenant);
  auto over = tables_.tenants.check(spec.tenant, held, adds, now);
  if (!over) return std::nullopt;
  tables_.metrics.of_tenant(spec.tenant, tables_.tenants.quotas()).refused.add();
  if (over->is_permanent) {
    tables_.metrics.refused.add();
    return refused(refuse(ErrorCode::kBadRequest, std::move(over->message)));
  }
  const bool is_rate = over->limit == TenantLimits::Limit::kTokens;
  // A tenth of the tenant's work must be done first.
  const int64_t retry_after_ms =
      is_rate ? over->retry_after_ms : QueueBounds::retry_after_ms(queue, static_cast<double>(held.tokens) / 10);
  return busy(is_rate ? Busy::kRate : Busy::kQuota, refuse(ErrorCode::kBusy, std::move(over->message)), retry_after_ms);
}

// Whether a job that is accepted now can be expected to end in time.
std::optional<protocol::SubmitOutcome> Admission::check_time(const protocol::JobSpec& spec, const ModelQueue& queue,
                                                             int64_t cost) {
  using Busy = SchedulerMetrics::Busy;
  if (spec.delay_ms > 0) return std::nullopt;  // what waits then is not known
  const FairQueue::Ahead ahead = queue.jobs.ahead_of_new(spec.tenant, spec.priority);
  const int64_t wait = ModelQueues::wait_ms(queue, ahead, cost);
  const bool by_queue = spec.queue_ms > 0 && spec.queue_ms < spec.ttl_ms;
  const int64_t limit = by_queue ? spec.queue_ms : spec.ttl_ms;
  if (wait == 0) return std::nullopt;
  if (wait < 0) {
    const size_t few = queue.running + kUnmeasuredJobs * static_cast<size_t>(queue.workers.serving);
    if (queue.workers.serving == 0 || limit >= kPatientMs || ahead.jobs <= few) return std::nullopt;
    return busy(Busy::kDeadline,
                refuse(ErrorCode::kBusy, "the speed of model " + queue.name + " is not measured yet, and " +
                                             std::to_string(ahead.jobs) + " jobs are ahead; try again soon"),
                kUnmeasuredRetryMs);
  }
  const int64_t run = by_queue ? 0 : ModelQueues::run_ms(queue, spec.max_new_tokens);
  const double excess = kWaitsThatFit * static_cast<double>(wait) - static_cast<double>(limit - run);
  if (excess <= 0) return std::nullopt;
  // By then so much of the work ahead has run that the job would fit. A job that does not fit into an empty queue never
  // will.
  const int64_t retry_after_ms = limit > run ? static_cast<int64_t>(excess / kWaitsThatFit) + 1 : 0;
  return busy(Busy::kDeadline,
              refuse(ErrorCode::kDeadlineExceeded,
                     "about " + std::to_string(ahead.jobs) + " jobs are ahead, the expected wait is " +
                         std::to_string(wait) + " ms and the job takes about " + std::to_string(run) +
                         " ms: too much for its " + (by_queue ? "queue_ms" : "ttl_ms") + " of " +
                         std::to_string(limit) + " (three times the wait has to fit in)"),
              retry_after_ms);
}

// A conversion that the key of no converter covers would wait until its time is over.
Status Admission::check_folders(const protocol::JobSpec& spec) const {
  const std::vector<ServiceEntry*> converters = tables_.services.of_kind(protocol::ServiceKind::kConverter);
  std::string folders;
  for (const ServiceEntry* converter : converters) {
    if (converter->folders.empty() || !spec.convert || covers(converter->folders, *spec.convert)) return ok_status();
    for (const std::string& folder : converter->folders) folders += (folders.empty() ? "" : ", ") + folder;
  }
  if (converters.empty()) return ok_status();
  return refuse(ErrorCode::kBadRequest,
                "a path of the conversion leads outside the folders that the keys of the "
                "converters name: " +
                    folders);
}

Status Admission::check_model(const protocol::JobSpec& spec, Instant now) const {
  if (spec.kind == protocol::JobKind::kConvert) return check_folders(spec);
  const protocol::ModelInfo* model = tables_.services.model(spec.model);
  if (model != nullptr) return check_known_model(spec, *model);
  const SchedulerOptions& options = tables_.options;
  const auto& listed = options.models;
  if (std::find(listed.begin(), listed.end(), spec.model) != listed.end()) return ok_status();
  if (tables_.was_restarted() && now < options.start + options.models_grace) {
    return refuse(ErrorCode::kBusy, "model " + spec.model +
                                        ": the scheduler has just restarted and not every service is back; try "
                                        "again soon");
  }
  std::vector<std::string> names = tables_.services.model_names();
  std::copy_if(listed.begin(), listed.end(), std::back_inserter(names),
               [&](const std::string& name) { return tables_.services.model(name) == nullptr; });
  return refuse(ErrorCode::kUnknownModel,
                "model " + spec.model + " is not served; served models: " + join_names(names));
}

Status Admission::check_known_model(const protocol::JobSpec& spec, const protocol::ModelInfo& model) const {
  if (Status status = validate(spec.rules, model.vocab); !status.ok()) return status;
  const bool needs_text = spec.prompt_ids.empty() || !spec.stop.empty() || !spec.bad_words.empty();
  if (needs_text && !tables_.services.has_text(spec.model)) return no_text(spec.model);
  if (model.vocab > 0 && spec.max_new_tokens > 0) {
    // Which ids the model pads and ends with is not known here; the worker looks again before it computes anything.
    const sampling::DrawableIds ids{model.vocab, -1, -1};
    if (Status s = check_drawable(spec.sampling, spec.rules, spec.prompt_ids, 0, ids); !s.ok()) return s;
  }
  if (spec.prompt_ids.empty()) return ok_status();
  for (const TokenId id : spec.prompt_ids) {
    if (model.vocab > 0 && id >= model.vocab) {
      return refuse(ErrorCode::kBadRequest, "prompt_ids: id " + std::to_string(id) + ", but the vocabulary of model " +
                                                spec.model + " has " + std::to_string(model.vocab) + " ids");
    }
  }
  return tables_.services.check_length(spec.model, spec.prompt_ids.size(), spec.max_new_tokens);
}

Job& Admission::accept(protocol::JobSpec spec, std::string encoded, std::string payload_sha256, Instant now) {
  auto owned = std::make_unique<Job>();
  owned->id = tables_.options.new_job_id();
  owned->order = tables_.jobs.take_order();
  owned->payload_sha256() = std::move(payload_sha256);
  owned->spec() = std::move(spec);
  owned->accepted_wall_ms = tables_.options.wall_ms();
  set_times(*owned, now, 0);
  Job& job = add(std::move(owned));
  journal::Accepted record;
  record.job = job.id;
  record.order = job.order;
  record.accepted_at_ms = tables_.store.time_ms(now);
  record.accepted_wall_ms = job.accepted_wall_ms;
  record.payload_sha256 = job.payload_sha256();
  record.encoded_spec = std::move(encoded);
  job.accepted_sequence = tables_.store.append(std::move(record));
  tables_.known.opened(job);
  if (job.is_generation()) tables_.tenants.take_tokens(job.spec().tenant, job.slot.cost, now);
  tables_.metrics.accepted.add();
  if (job.is_generation()) tables_.metrics.of_model(job.spec().model).accepted.add();
  if (is_sampled(job.spec().traceparent)) {
    log_info("job_accepted", {{"job", job.id.hex()}, {"model", job.spec().model}, trace_field(job.spec().traceparent)});
  }
  return job;
}

Job& Admission::add(std::unique_ptr<Job> owned) {
  owned->prompt().bytes_shown = tables_.options.prompt_bytes_kept;
  owned->slot.queue = &tables_.queues.of(owned->spec());
  owned->slot.cost = cost_of(owned->spec(), *owned->slot.queue);
  Job& job = tables_.jobs.add(std::move(owned));
  tables_.bounds.add(job);
  return job;
}

// In tokens; a conversion counts as one.
int64_t Admission::cost_of(const protocol::JobSpec& spec, const ModelQueue& queue) {
  if (spec.kind == protocol::JobKind::kConvert) return 1;
  const int64_t prompt = spec.prompt_ids.empty() ? queue.load.prompt_tokens(spec.prompt.size())
                                                 : static_cast<int64_t>(spec.prompt_ids.size());
  return prompt + int64_t{spec.max_new_tokens} * spec.sampling.beam_width;
}

Status Admission::check_put_back(const protocol::JobSpec& spec) {
  if (Status status = tables_.modes.accepts(spec.model); !status.ok()) return status;
  const ModelQueue& queue = tables_.queues.of(spec);
  const TenantLoad adds = load_of(spec, cost_of(spec, queue));
  if (auto over = tables_.tenants.check_held(spec.tenant, tables_.bounds.load_of(spec.tenant), adds)) {
    return refuse(ErrorCode::kBusy, std::move(over->message));
  }
  const auto full = tables_.bounds.check(spec, cost_of(spec, queue), static_cast<size_t>(adds.bytes), queue);
  return full ? refuse(ErrorCode::kBusy, full->message) : ok_status();
}

Job& Admission::put_back(uint64_t dead_order, journal::Accepted record, Instant now) {
  auto owned = std::make_unique<Job>();
  owned->id = record.job;
  owned->order = record.order = tables_.jobs.take_order();
  owned->accepted_wall_ms = record.accepted_wall_ms = tables_.options.wall_ms();
  record.accepted_at_ms = tables_.store.time_ms(now);
  owned->payload_sha256() = record.payload_sha256;
  owned->spec() = record.spec;
  set_times(*owned, now, 0);
  if (record.encoded_spec.empty()) record.encoded_spec = protocol::encode_job_spec(record.spec);
  Job& job = add(std::move(owned));
  job.accepted_sequence = tables_.store.append(journal::Requeued{dead_order, std::move(record)});
  tables_.known.put_back(job.id);
  tables_.known.opened(job);
  log_info("job_put_back", {{"job", job.id.hex()}, trace_field(job.spec().traceparent)});
  return job;
}

}  // namespace optserve::scheduler
