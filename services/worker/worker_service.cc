#include "worker/worker_service.h"

#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "protocol/validate.h"

namespace optserve::worker {
namespace {

constexpr size_t kTokensPerMessageMax = 1024;  // entries of one Tokens message

protocol::FinishReason wire_reason(batching::FinishReason reason) {
  switch (reason) {
    case batching::FinishReason::kEndOfText:
      return protocol::FinishReason::kEndOfText;
    case batching::FinishReason::kLength:
      return protocol::FinishReason::kLength;
    case batching::FinishReason::kCancelled:
      return protocol::FinishReason::kCancelled;
    case batching::FinishReason::kNonFinite:
      return protocol::FinishReason::kError;
  }
  return protocol::FinishReason::kError;
}

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
  for (const TokenId id : item.tokens) {
    if (id < 0 || id >= model.vocab) {
      return refuse(ErrorCode::kBadRequest, "tokens: id " + std::to_string(id) + " is not below the vocabulary of " +
                                                std::to_string(model.vocab));
    }
  }
  return optserve::validate(item.sampling);
}

}  // namespace

WorkerService::WorkerService(protocol::Register registration, transport::SchedulerLinkOptions link, EnginePort& engine,
                             WorkerMetrics& metrics)
    : registration_(std::move(registration)),
      scheduler_{link.port, {}},
      engine_(engine),
      metrics_(metrics),
      link_(registration_, link,
            {.on_registered = [this](uint64_t, bool, Instant, transport::Outbox&) { drop_all_jobs("registered_anew"); },
             .on_lost = [this](Instant, transport::Outbox&) { drop_all_jobs("scheduler_silent"); }}) {}

void WorkerService::on_message(const transport::Peer&, protocol::Message message, Instant now, transport::Outbox& out) {
  if (link_.on_message(message, now, out)) return;
  if (auto* dispatch = std::get_if<protocol::Dispatch>(&message)) {
    if (dispatch->term != link_.term()) return;  // of a scheduler that is gone
    for (protocol::DispatchItem& item : dispatch->items) start(std::move(item), out);
  } else if (const auto* revoked = std::get_if<protocol::Revoke>(&message)) {
    if (revoked->term == link_.term()) revoke(*revoked);
  } else {
    log_warn("unexpected_message", {{"kind", protocol::message_name(message)}});
  }
}

void WorkerService::start(protocol::DispatchItem item, transport::Outbox& out) {
  metrics_.leases.add();
  if (draining_) return fail(item.lease, ErrorCode::kUnavailable, "the worker is stopping", true, out);
  if (by_lease_.contains(item.lease)) return;  // dispatched twice
  if (const Status status = check_item(item, registration_.models.front()); !status.ok()) {
    return fail(item.lease, status.refusal().code, status.refusal().message, false, out);
  }
  batching::SequenceRequest request;
  request.id = next_id_++;
  request.tokens = std::move(item.tokens);
  request.prompt_tokens = item.prompt_tokens;
  request.max_new_tokens = item.max_new_tokens;
  request.sampling = item.sampling;
  request.prompt_logprobs = item.prompt_logprobs;
  jobs_.emplace(request.id, Job{item.lease, item.prompt_tokens});
  by_lease_.emplace(item.lease, request.id);
  engine_.add(std::move(request));
}

void WorkerService::revoke(const protocol::Revoke& revoked) {
  for (const uint64_t lease : revoked.leases) {
    const auto found = by_lease_.find(lease);
    if (found == by_lease_.end()) continue;
    engine_.cancel(found->second);
    jobs_.erase(found->second);
    by_lease_.erase(found);
  }
}

void WorkerService::drop_all_jobs(const char* cause) {
  if (!jobs_.empty()) log_warn("leases_dropped", {{"count", jobs_.size()}, {"cause", cause}});
  for (const auto& [id, job] : jobs_) {
    engine_.cancel(id);
    metrics_.leases_dropped.add();
  }
  jobs_.clear();
  by_lease_.clear();
}

void WorkerService::fail(uint64_t lease, ErrorCode code, std::string message, bool transient,
                         transport::Outbox& out) const {
  metrics_.leases_failed.add();
  out.send(scheduler_, protocol::LeaseFailed{link_.term(), lease, code, std::move(message), transient});
}

void WorkerService::append_token(const Job& job, const batching::SequenceEvent& event, protocol::Tokens& tokens) const {
  tokens.leases.push_back(job.lease);
  tokens.positions.push_back(static_cast<uint32_t>(event.position - job.prompt_tokens));
  tokens.tokens.push_back(*event.token);
  tokens.finished.push_back(event.finished ? static_cast<uint8_t>(wire_reason(*event.finished)) : 0);
  metrics_.tokens.add();
}

void WorkerService::on_engine_events(std::vector<EngineEvent> events, transport::Outbox& out) {
  protocol::Tokens tokens;
  tokens.term = link_.term();
  for (EngineEvent& item : events) {
    const auto found = jobs_.find(item.event.id);
    if (found == jobs_.end()) continue;  // revoked meanwhile
    const Job job = found->second;
    if (!item.event.prompt_logprobs.empty()) {
      out.send(scheduler_,
               protocol::PromptLogprobs{link_.term(), job.lease, static_cast<uint32_t>(item.event.logprobs_start),
                                        std::move(item.event.prompt_logprobs)});
    }
    if (item.refused) {
      fail(job.lease, item.refused->code, item.refused->message, false, out);
    } else if (item.event.finished == batching::FinishReason::kNonFinite) {
      fail(job.lease, ErrorCode::kInternal, "the model's output is not finite", true, out);
    } else if (item.event.token) {
      append_token(job, item.event, tokens);
    }
    if (item.refused || item.event.finished) {
      by_lease_.erase(job.lease);
      jobs_.erase(found);
    }
    if (tokens.leases.size() == kTokensPerMessageMax) {
      out.send(scheduler_, std::exchange(tokens, protocol::Tokens{link_.term(), {}, {}, {}, {}}));
    }
  }
  if (!tokens.leases.empty()) out.send(scheduler_, std::move(tokens));
  leave_if_done(out);
}

void WorkerService::on_undeliverable(const transport::Peer&, protocol::Message message, bool, Instant now,
                                     transport::Outbox& out) {
  if (link_.on_undeliverable(message, now)) return;
  // A lost message leaves a gap in a job's tokens. Registering anew makes the scheduler run those jobs again.
  drop_all_jobs("scheduler_unreachable");
  link_.update(registration_, now, out);
}

void WorkerService::on_tick(Instant now, transport::Outbox& out) {
  link_.set_load({engine_.steps(), static_cast<int32_t>(jobs_.size()), draining_});
  link_.on_tick(now, out);
  leave_if_done(out);
}

void WorkerService::begin_drain(Instant, transport::Outbox& out) {
  draining_ = true;
  leave_if_done(out);
}

void WorkerService::leave_if_done(transport::Outbox& out) {
  if (!draining_ || left_ || !jobs_.empty()) return;
  link_.goodbye(out);
  left_ = true;
}

}  // namespace optserve::worker
