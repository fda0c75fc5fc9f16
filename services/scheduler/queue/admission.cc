// Submit: what is accepted, what is refused, and the way of a prompt to its ids.
#include <algorithm>
#include <iterator>
#include <utility>

#include "base/limits.h"
#include "base/sha256.h"
#include "protocol/codec.h"
#include "protocol/validate.h"
#include "scheduler/scheduler_service.h"

namespace optserve::scheduler {
namespace {

constexpr int64_t kCongestedRetryMs = 200;
constexpr int64_t kFullRetryMs = 5'000;
// A job is refused for its time only if the expected wait exceeds it by this factor: the wait is an estimate.
constexpr double kClearly = 1.5;

protocol::SubmitOutcome refused(const Refusal& why, int64_t retry_after_ms = 0) {
  protocol::SubmitOutcome outcome;
  outcome.error = why.code;
  outcome.message = why.message;
  outcome.retry_after_ms = retry_after_ms;
  return outcome;
}

std::string payload_digest(const protocol::JobSpec& spec) {
  const auto digest = sha256(protocol::encode_job_payload(spec));
  return {digest.begin(), digest.end()};
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

}  // namespace

void SchedulerService::on(const Peer& from, protocol::Submit message, Instant now, Outbox& out) {
  if (draining_) {
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
  std::vector<JobId> followed;
  uint64_t after = 0;
  for (protocol::JobSpec& spec : message.jobs) {
    reply.outcomes.push_back(admit(std::move(spec), followed, after, now));
  }
  out.send_after(after, from, std::move(reply));
  if (!message.stream) return;
  const std::shared_ptr<Client> client = streams_.client(from);
  for (const JobId& id : followed) {
    if (Job* job = jobs_.find(id)) {
      follow(*job, client, 0, after, now);
      continue;
    }
    find_result(from, 0, {id, true, after}, now, out);
  }
}

protocol::SubmitOutcome SchedulerService::admit(protocol::JobSpec spec, std::vector<JobId>& followed, uint64_t& after,
                                                Instant now) {
  if (Status status = protocol::validate(spec); !status.ok()) {
    metrics_.refused.add();
    return refused(status.refusal());
  }
  protocol::SubmitOutcome outcome;
  if (const IdempotencyKeys::Entry* known = keys_.find(spec.tenant, spec.key)) {
    if (!known->payload_sha256.empty() && known->payload_sha256 != payload_digest(spec)) {
      metrics_.conflicts.add();
      return refused(refuse(ErrorCode::kIdempotencyConflict,
                            "key " + spec.key + " already names job " + known->job.hex() + " with another payload"));
    }
    metrics_.duplicates.add();
    outcome.job = known->job;
    outcome.duplicate = true;
    after = std::max(after, known->sequence);  // also of a job that ended before its acceptance was on disk
    followed.push_back(known->job);
    return outcome;
  }
  Status status = modes_.accepts(spec.model);
  if (status.ok()) status = check_model(spec, now);
  if (!status.ok()) {
    metrics_.refused.add();
    return refused(status.refusal());
  }
  if (auto no_room = check_room(spec)) return *no_room;
  std::string encoded = protocol::encode_job_spec(spec);
  std::string payload = payload_digest(spec);
  Job& job = accept(std::move(spec), std::move(encoded), std::move(payload), now);
  outcome.job = job.id;
  after = std::max(after, job.accepted_sequence);
  followed.push_back(job.id);
  begin(job, now);
  const Place place = place_of(job, now);
  outcome.position = place.position;
  outcome.eta_ms = place.eta_ms;
  return outcome;
}

// A refusal costs a few look-ups: neither a digest nor a record is made for it.
std::optional<protocol::SubmitOutcome> SchedulerService::check_room(const protocol::JobSpec& spec) {
  const auto busy = [&](SchedulerMetrics::Busy why, const Refusal& refusal, int64_t retry_after_ms) {
    metrics_.busy[static_cast<size_t>(why)].add();
    return refused(refusal, retry_after_ms);
  };
  if (store_.is_full()) {
    return busy(
        SchedulerMetrics::Busy::kStorage,
        refuse(ErrorCode::kStorageFull, "the disk of the journal is full; nothing new is accepted until it has room"),
        kFullRetryMs);
  }
  if (store_.is_congested()) {
    return busy(SchedulerMetrics::Busy::kJournal, refuse(ErrorCode::kBusy, "the journal is behind; try again soon"),
                kCongestedRetryMs);
  }
  const ModelQueue& queue = queues_.of(spec);
  const int64_t cost = cost_of(spec, queue);
  if (auto full = bounds_.check(spec, cost, QueueBounds::bytes_of(spec, 0), queue)) {
    return busy(static_cast<SchedulerMetrics::Busy>(full->bound), refuse(ErrorCode::kBusy, std::move(full->message)),
                full->retry_after_ms);
  }
  if (spec.delay_ms > 0) return std::nullopt;  // what waits then is not known
  const FairQueue::Ahead ahead = queue.jobs.ahead_of_new(spec.tenant, spec.priority);
  const int64_t wait = ModelQueues::wait_ms(queue, ahead, cost);
  const bool by_queue = spec.queue_ms > 0 && spec.queue_ms < spec.ttl_ms;
  const int64_t limit = by_queue ? spec.queue_ms : spec.ttl_ms;
  if (static_cast<double>(wait) <= kClearly * static_cast<double>(limit)) return std::nullopt;
  return busy(SchedulerMetrics::Busy::kDeadline,
              refuse(ErrorCode::kDeadlineExceeded,
                     "about " + std::to_string(ahead.jobs) + " jobs are ahead and the expected wait is " +
                         std::to_string(wait) + " ms, but " + (by_queue ? "queue_ms" : "ttl_ms") + " is " +
                         std::to_string(limit)),
              0);
}

Status SchedulerService::check_model(const protocol::JobSpec& spec, Instant now) const {
  if (spec.kind == protocol::JobKind::kConvert) return ok_status();
  const protocol::ModelInfo* model = services_.model(spec.model);
  if (model == nullptr) {
    const auto& listed = options_.models;
    if (std::find(listed.begin(), listed.end(), spec.model) != listed.end()) return ok_status();
    if (restarted_ && now < options_.start + options_.models_grace) {
      return refuse(ErrorCode::kBusy, "model " + spec.model +
                                          ": the scheduler has just restarted and not every service is back; try "
                                          "again soon");
    }
    std::vector<std::string> names = services_.model_names();
    std::copy_if(listed.begin(), listed.end(), std::back_inserter(names),
                 [&](const std::string& name) { return services_.model(name) == nullptr; });
    return refuse(ErrorCode::kUnknownModel, "model " + spec.model + " is not served; served models: " + join(names));
  }
  if (Status status = validate(spec.rules, model->vocab); !status.ok()) return status;
  if (spec.prompt_ids.empty()) return ok_status();
  for (const TokenId id : spec.prompt_ids) {
    if (model->vocab > 0 && id >= model->vocab) {
      return refuse(ErrorCode::kBadRequest, "prompt_ids: id " + std::to_string(id) + ", but the vocabulary of model " +
                                                spec.model + " has " + std::to_string(model->vocab) + " ids");
    }
  }
  return check_length(spec.model, spec.prompt_ids.size(), spec.max_new_tokens);
}

Status SchedulerService::check_length(const std::string& model, size_t prompt_tokens, int32_t max_new_tokens) const {
  const protocol::ModelInfo* info = services_.model(model);
  const size_t context =
      info != nullptr && info->context > 0 ? static_cast<size_t>(info->context) : limits::kContextTokensMax;
  if (prompt_tokens + static_cast<size_t>(max_new_tokens) <= context) return ok_status();
  return refuse(ErrorCode::kPromptTooLong, "prompt of " + std::to_string(prompt_tokens) +
                                               " tokens (with the leading </s>) and max_new_tokens " +
                                               std::to_string(max_new_tokens) + " exceed the context of " +
                                               std::to_string(context) + " tokens of model " + model);
}

Job& SchedulerService::accept(protocol::JobSpec spec, std::string encoded, std::string payload, Instant now) {
  auto owned = std::make_unique<Job>();
  owned->id = options_.new_job_id();
  owned->order = next_order_++;
  owned->payload_sha256 = std::move(payload);
  owned->spec = std::move(spec);
  owned->accepted_wall_ms = wall_ms(now);
  set_times(*owned, now, 0);
  Job& job = add_job(std::move(owned));
  journal::Accepted record;
  record.job = job.id;
  record.order = job.order;
  record.accepted_wall_ms = job.accepted_wall_ms;
  record.payload_sha256 = job.payload_sha256;
  record.encoded_spec = std::move(encoded);
  job.accepted_sequence = store_.append(std::move(record));
  note_open(job);
  metrics_.accepted.add();
  return job;
}

Job& SchedulerService::add_job(std::unique_ptr<Job> owned) {
  owned->queue = &queues_.of(owned->spec);
  owned->cost = cost_of(owned->spec, *owned->queue);
  const Instant deadline = next_limit(*owned).at;
  Job& job = jobs_.add(std::move(owned), deadline);
  bounds_.add(job);
  return job;
}

// In tokens; a conversion counts as one.
int64_t SchedulerService::cost_of(const protocol::JobSpec& spec, const ModelQueue& queue) {
  if (spec.kind == protocol::JobKind::kConvert) return 1;
  const int64_t prompt = spec.prompt_ids.empty() ? queue.load.prompt_tokens(spec.prompt.size())
                                                 : static_cast<int64_t>(spec.prompt_ids.size());
  return prompt + int64_t{spec.max_new_tokens} * spec.sampling.beam_width;
}

void SchedulerService::begin(Job& job, Instant now) {
  if (job.begins_at > now) {
    delay(job, job.begins_at);
  } else if (!job.is_generation()) {
    job.ready_at = now;
    enqueue(job, now);
  } else if (!job.spec.prompt_ids.empty() && job.spec.bad_words.empty()) {
    job.prompt_ids = job.spec.prompt_ids;
    job.ready_at = now;
    enqueue(job, now);
  } else {
    jobs_.set_stage(job, Stage::kEncoding);
    job.queue->jobs.expect(job);
    tokenizers_.ask_encode(job);
  }
}

void SchedulerService::on(ServiceEntry& from, protocol::Encoded message, Instant now, Outbox&) {
  for (protocol::EncodedItem& item : message.items) {
    if (Job* job = tokenizers_.take_answer(from, item.ticket, false)) on_encoded(*job, std::move(item), now);
  }
}

void SchedulerService::on_encoded(Job& job, protocol::EncodedItem item, Instant now) {
  using protocol::FinishReason;
  using protocol::JobState;
  if (item.error == ErrorCode::kBusy || item.error == ErrorCode::kUnavailable) {
    ask_again(job, true, now);
    return;
  }
  if (item.error) {
    finish(job, {JobState::kFailed, FinishReason::kError, *item.error, item.message}, now);
    return;
  }
  const protocol::ModelInfo* model = services_.model(job.spec.model);
  const int32_t vocab =
      model != nullptr && model->vocab > 0 ? model->vocab : static_cast<int32_t>(limits::kVocabularyMax);
  const auto fit = [vocab](const std::vector<TokenId>& ids) {
    return std::ranges::all_of(ids, [vocab](TokenId id) { return id >= 0 && id < vocab; });
  };
  const bool words_fit =
      item.bad_words.size() <= 2 * job.spec.bad_words.size() && std::ranges::all_of(item.bad_words, fit);
  if (!fit(item.ids) || !words_fit || item.count < item.ids.size()) {
    ask_again(job, true, now);  // this tokenizer is broken; another may not be
    return;
  }
  const bool has_ids = !job.spec.prompt_ids.empty();  // then only the bad words were asked for
  const size_t count = has_ids ? job.spec.prompt_ids.size() : size_t{item.count} + 1;
  if (Status status = check_length(job.spec.model, count, job.spec.max_new_tokens); !status.ok()) {
    finish(job, {JobState::kFailed, FinishReason::kError, status.refusal().code, status.refusal().message}, now);
    return;
  }
  job.question.tries = 0;
  job.bad_word_ids = std::move(item.bad_words);
  if (has_ids) {
    job.prompt_ids = job.spec.prompt_ids;
  } else {
    job.prompt_ids.clear();
    job.prompt_ids.reserve(count);
    job.prompt_ids.push_back(kEndOfText);
    job.prompt_ids.insert(job.prompt_ids.end(), item.ids.begin(), item.ids.end());
    job.queue->load.learn_prompt(job.spec.prompt.size(), count);
  }
  job.ready_at = now;
  job.cost = static_cast<int64_t>(count) + job.tokens_each() * job.spec.max_new_tokens;
  bounds_.update(job);
  metrics_.encode_seconds.observe(
      std::chrono::duration<double>(now - std::max(job.begins_at, job.accepted_at)).count());
  enqueue(job, now);
}

void SchedulerService::ask_again(Job& job, bool counts, Instant now) {
  metrics_.tokenizer_retries.add();
  if (tokenizers_.ask_again(job, counts)) return;
  finish(job,
         {protocol::JobState::kFailed, protocol::FinishReason::kError, ErrorCode::kInternal,
          "no tokenizer answered " + std::to_string(options_.tokenizer_tries) + " times in a row"},
         now);
}

}  // namespace optserve::scheduler
