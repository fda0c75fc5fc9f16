#include "worker/worker_service.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/trace_context.h"
#include "protocol/validate.h"
#include "sampling/validate_params.h"

namespace optserve::worker {
namespace {

constexpr size_t kTokensPerMessageMax = 1024;  // entries of one Tokens message
constexpr seconds kSplitInterval{1};           // each heartbeat carries a fresh share
// Longest time that a job can have, its delay included; a longer one is cut to it.
constexpr milliseconds kRemainingMax{limits::kJobTtlMsMax + limits::kJobDelayMsMax};

// Limits are checked here again: the scheduler may be of another version.
Status check_item(const protocol::DispatchItem& item, const protocol::ModelInfo& model) {
  if (item.model != model.name) {
    return refuse(ErrorCode::kUnknownModel,
                  "model: this group serves '" + model.name + "', asked for '" + item.model + "'");
  }
  if (item.prompt_tokens < 1 || static_cast<size_t>(item.prompt_tokens) > item.tokens.size()) {
    return refuse(ErrorCode::kBadRequest, "prompt_tokens: expected 1 to " + std::to_string(item.tokens.size()) +
                                              ", found " + std::to_string(item.prompt_tokens));
  }
  if (item.remaining_ms < 0) {
    return refuse(ErrorCode::kBadRequest,
                  "remaining_ms: expected 0 or more, found " + std::to_string(item.remaining_ms));
  }
  for (const TokenId id : item.tokens) {
    if (id < 0 || id >= model.vocab) {
      return refuse(ErrorCode::kBadRequest, "tokens: id " + std::to_string(id) + " is not below the vocabulary of " +
                                                std::to_string(model.vocab));
    }
  }
  if (Status s = check_range("prompt_best", item.prompt_best, 0, limits::kTopLogprobsMax); !s.ok()) return s;
  if (Status status = sampling::validate(item.rules, model.vocab); !status.ok()) return status;
  return sampling::validate(item.sampling);
}

}  // namespace

WorkerService::WorkerService(protocol::Register registration, transport::SchedulerLinkOptions link, EnginePort& engine,
                             WorkerMetrics& metrics, std::function<void(bool ready)> on_ticked)
    : registration_(std::move(registration)),
      engine_(engine),
      metrics_(metrics),
      on_ticked_(std::move(on_ticked)),
      links_(registration_, link,
             {.on_registered =
                  [this](transport::PortId scheduler, bool, Instant, transport::Outbox&) {
                    drop_jobs(scheduler, "registered_anew");
                    next_split_ = Instant{};  // its first heartbeat says what it may lease
                  },
              .on_lost = [this](transport::PortId scheduler, Instant,
                                transport::Outbox&) { drop_jobs(scheduler, "scheduler_silent"); }}),
      capacity_(registration_.max_sequences, links_.size()) {
  check_eq(metrics_.of_scheduler.size(), links_.size(), "schedulers that are measured");
}

void WorkerService::on_message(const transport::Peer& from, protocol::Message message, Instant now,
                               transport::Outbox& out) {
  if (links_.on_message(from, message, now, out)) return;
  const uint64_t term = links_.of(from.port).term();
  if (auto* dispatch = std::get_if<protocol::Dispatch>(&message)) {
    if (dispatch->term != term) return;  // of a scheduler that is gone
    for (protocol::DispatchItem& item : dispatch->items) start(from.port, std::move(item), now, out);
  } else if (const auto* revoked = std::get_if<protocol::Revoke>(&message)) {
    if (revoked->term == term) revoke(from.port, *revoked);
  } else {
    log_warn("unexpected_message", {{"kind", protocol::message_name(message)}});
  }
}

void WorkerService::start(transport::PortId scheduler, protocol::DispatchItem item, Instant now,
                          transport::Outbox& out) {
  metrics_.leases.add();
  const LeaseKey lease{scheduler, item.lease};
  if (draining_) return fail(lease, ErrorCode::kUnavailable, "the worker is stopping", true, out);
  if (by_lease_.contains(lease)) return;  // dispatched twice
  if (const Status status = check_item(item, registration_.models.front()); !status.ok()) {
    return fail(lease, status.refusal().code, status.refusal().message, false, out);
  }
  batching::SequenceRequest request;
  request.id = next_id_++;
  request.tokens = std::move(item.tokens);
  request.prompt_tokens = item.prompt_tokens;
  request.max_new_tokens = item.max_new_tokens;
  request.sampling = item.sampling;
  request.rules = std::move(item.rules);
  request.cache_salt = std::move(item.cache_salt);
  request.prompt_logprobs = item.prompt_logprobs;
  request.prompt_best = item.prompt_logprobs ? item.prompt_best : 0;
  Job job{scheduler, item.lease, item.prompt_tokens, item.sampling.logprobs >= 0};
  if (is_sampled(item.traceparent)) {
    log_info("job_started",
             {{"job", item.job.hex()}, {"prompt_tokens", item.prompt_tokens}, trace_field(item.traceparent)});
    job.traced = std::make_shared<const TracedJob>(TracedJob{item.job.hex(), std::move(item.traceparent)});
  }
  if (item.remaining_ms > 0) {
    job.expires = now + std::min<milliseconds>(milliseconds(item.remaining_ms), kRemainingMax);
  }
  jobs_.emplace(request.id, job);
  by_lease_.emplace(lease, request.id);
  engine_.add(std::move(request));
}

WorkerService::Jobs::iterator WorkerService::give_up(Jobs::iterator job) {
  engine_.cancel(job->first);
  by_lease_.erase({job->second.scheduler, job->second.lease});
  return jobs_.erase(job);
}

void WorkerService::revoke(transport::PortId scheduler, const protocol::Revoke& revoked) {
  for (const uint64_t lease : revoked.leases) {
    const auto found = by_lease_.find({scheduler, lease});
    if (found != by_lease_.end()) give_up(jobs_.find(found->second));
  }
}

void WorkerService::drop_jobs(transport::PortId scheduler, const char* cause) {
  const int32_t count = held(scheduler);
  if (count == 0) return;
  log_warn("leases_dropped", {{"scheduler", scheduler}, {"count", count}, {"cause", cause}});
  metrics_.leases_dropped.add(count);
  for (auto job = jobs_.begin(); job != jobs_.end();) {
    job = job->second.scheduler == scheduler ? give_up(job) : std::next(job);
  }
}

void WorkerService::drop_expired_jobs(Instant now) {
  // Nothing is reported about them: the scheduler ends such a job by its own clock, or cannot be reached.
  for (auto job = jobs_.begin(); job != jobs_.end();) {
    const bool expired = now >= job->second.expires;
    if (expired) metrics_.leases_expired.add();
    job = expired ? give_up(job) : std::next(job);
  }
}

int32_t WorkerService::held(transport::PortId scheduler) const {
  const auto first = by_lease_.lower_bound({scheduler, 0});
  return static_cast<int32_t>(std::distance(first, by_lease_.lower_bound({scheduler + 1, 0})));
}

void WorkerService::fail(const LeaseKey& lease, ErrorCode code, std::string message, bool transient,
                         transport::Outbox& out) const {
  const auto& [scheduler, number] = lease;
  metrics_.leases_failed.add();
  out.send({scheduler, {}},
           protocol::LeaseFailed{links_.of(scheduler).term(), number, code, std::move(message), transient});
}

void WorkerService::append_token(const Job& job, const batching::SequenceEvent& event, protocol::Tokens& tokens) const {
  tokens.leases.push_back(job.lease);
  tokens.positions.push_back(static_cast<uint32_t>(event.position - job.prompt_tokens));
  tokens.tokens.push_back(*event.token);
  tokens.finished.push_back(static_cast<uint8_t>(event.finished.value_or(sampling::FinishReason::kNone)));
  if (job.wants_logprobs || !tokens.logprobs.empty()) {
    tokens.logprobs.resize(tokens.leases.size());
    tokens.best.resize(tokens.leases.size());
    tokens.logprobs.back() = event.logprob;
    tokens.best.back() = event.best;
  }
  metrics_.tokens.add();
}

void WorkerService::on_engine_events(std::vector<batching::SequenceEvent> events, transport::Outbox& out) {
  std::vector<protocol::Tokens> of_scheduler(links_.size());
  for (batching::SequenceEvent& item : events) {
    const auto found = jobs_.find(item.id);
    if (found == jobs_.end()) continue;  // revoked meanwhile
    const transport::PortId scheduler = found->second.scheduler;
    protocol::Tokens& tokens = of_scheduler[links_.index(scheduler)];
    on_engine_event(std::move(item), found, tokens, out);
    if (tokens.leases.size() == kTokensPerMessageMax) send_tokens(scheduler, tokens, out);
  }
  for (size_t i = 0; i < of_scheduler.size(); ++i) {
    if (!of_scheduler[i].leases.empty()) send_tokens(links_.port(i), of_scheduler[i], out);
  }
  leave_where_done(out);
}

void WorkerService::on_engine_event(batching::SequenceEvent item, Jobs::iterator at, protocol::Tokens& tokens,
                                    transport::Outbox& out) {
  const Job job = at->second;
  const LeaseKey lease{job.scheduler, job.lease};
  if (!item.prompt_logprobs.empty()) {
    out.send(
        {job.scheduler, {}},
        protocol::PromptLogprobs{links_.of(job.scheduler).term(), job.lease, static_cast<uint32_t>(item.logprobs_start),
                                 std::move(item.prompt_logprobs), std::move(item.prompt_best)});
  }
  if (!item.hypotheses.empty()) {
    protocol::Hypotheses message{links_.of(job.scheduler).term(), job.lease, {}};
    for (batching::Hypothesis& hypothesis : item.hypotheses) {
      message.hypotheses.push_back({std::move(hypothesis.tokens), hypothesis.logprob,
                                    static_cast<float>(hypothesis.score), hypothesis.finished});
    }
    out.send({job.scheduler, {}}, std::move(message));
  }
  if (item.refused) {
    fail(lease, item.refused->code, item.refused->message, false, out);
  } else if (item.finished == sampling::FinishReason::kError) {
    fail(lease, ErrorCode::kInternal, "the model's output is not finite", true, out);
  } else if (item.token) {
    append_token(job, item, tokens);
  }
  if (item.refused || item.finished) {
    if (job.traced) {
      log_info("job_done", {{"job", job.traced->job},
                            {"outcome", item.refused ? error_code_name(item.refused->code)
                                                     : protocol::finish_reason_name(*item.finished)},
                            trace_field(job.traced->traceparent)});
    }
    by_lease_.erase(lease);
    jobs_.erase(at);
  }
}

void WorkerService::send_tokens(transport::PortId scheduler, protocol::Tokens& tokens, transport::Outbox& out) const {
  tokens.term = links_.of(scheduler).term();
  out.send({scheduler, {}}, std::exchange(tokens, {}));
}

void WorkerService::on_undeliverable(const transport::Peer& to, protocol::Message message, bool, Instant now,
                                     transport::Outbox& out) {
  if (links_.on_undeliverable(to, message, now)) return;
  // A lost message leaves a gap in a job's tokens. Registering anew makes the scheduler run those jobs again.
  drop_jobs(to.port, "scheduler_unreachable");
  links_.of(to.port).update(registration_, now, out);
}

void WorkerService::on_tick(Instant now, transport::Outbox& out) {
  drop_expired_jobs(now);
  split_capacity(now);
  set_loads();
  links_.on_tick(now, out);
  leave_where_done(out);
  if (on_ticked_) on_ticked_(links_.is_registered() && !draining_);
}

void WorkerService::split_capacity(Instant now) {
  if (now < next_split_) return;
  next_split_ = now + kSplitInterval;
  std::vector<transport::CapacityDemand> demands;
  for (size_t i = 0; i < links_.size(); ++i) {
    const transport::PortId scheduler = links_.port(i);
    const transport::SchedulerLink& link = links_.of(scheduler);
    demands.push_back({link.is_registered(), held(scheduler), link.waiting()});
  }
  capacity_.update(demands);
}

void WorkerService::set_loads() {
  for (size_t i = 0; i < links_.size(); ++i) {
    const transport::PortId scheduler = links_.port(i);
    const int32_t leases = held(scheduler), share = capacity_.share(i);
    links_.of(scheduler).set_load({engine_.steps(), leases, draining_, share});
    metrics_.of_scheduler[i].registered.set(links_.of(scheduler).is_registered() ? 1 : 0);
    metrics_.of_scheduler[i].held.set(leases);
    metrics_.of_scheduler[i].capacity.set(share);
  }
}

void WorkerService::begin_drain(Instant now, transport::Outbox& out) {
  draining_ = true;
  leave_where_done(out);
  set_loads();
  links_.beat(now, out);  // no scheduler leases anything more in the second until the next heartbeat
}

void WorkerService::leave_where_done(transport::Outbox& out) {
  if (!draining_) return;
  for (size_t i = 0; i < links_.size(); ++i) {
    if (held(links_.port(i)) == 0) links_.of(links_.port(i)).goodbye(out);
  }
}

}  // namespace optserve::worker
