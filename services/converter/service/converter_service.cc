#include "converter/service/converter_service.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/trace_context.h"

namespace optserve::converter {
namespace {

constexpr milliseconds kProgressInterval{200};
// Time for a scheduler to restart and lease the job again, before another one's job ends its conversion.
constexpr seconds kKeptWithoutLease{30};

protocol::Register complete(protocol::Register hello) {
  hello.kind = protocol::ServiceKind::kConverter;
  hello.max_sequences = 1;
  return hello;
}

metrics::Counter counter(metrics::Registry& registry, const char* result) {
  return registry.counter("optserve_converter_conversions_total", "Conversions that ended", {{"result", result}});
}

}  // namespace

ConverterService::ConverterService(ConversionPort& conversions, protocol::Register hello,
                                   const transport::SchedulerLinkOptions& link, metrics::Registry& registry,
                                   metrics::Health& health)
    : conversions_(conversions),
      links_(complete(std::move(hello)), link,
             {.on_registered = [this](transport::PortId scheduler, bool new_term, Instant now,
                                      transport::Outbox&) { on_registered(scheduler, new_term, now); },
              .on_lost = [this](transport::PortId scheduler, Instant now,
                                transport::Outbox&) { on_lost(scheduler, now); }}),
      health_(health),
      succeeded_(counter(registry, "succeeded")),
      failed_(counter(registry, "failed")),
      cancelled_(counter(registry, "cancelled")),
      running_gauge_(registry.gauge("optserve_converter_running", "1 while a conversion runs")),
      progress_gauge_(
          registry.gauge("optserve_converter_progress_ratio", "Part of the running conversion that is done, 0 to 1")),
      bytes_counter_(registry.counter("optserve_converter_bytes_total", "Bytes of weights that were converted")),
      duration_(registry.histogram("optserve_converter_conversion_seconds", "Time of a conversion that succeeded",
                                   {1, 5, 10, 30, 60, 120, 300, 600, 1'200, 1'800, 3'600, 7'200, 14'400})) {}

void ConverterService::on_message(const transport::Peer& from, protocol::Message message, Instant now,
                                  transport::Outbox& out) {
  if (links_.on_message(from, message, now, out)) {
    health_.ready = links_.is_registered() && !draining_;
    return;
  }
  const uint64_t term = links_.of(from.port).term();
  if (auto* dispatched = std::get_if<protocol::ConvertDispatch>(&message)) {
    if (dispatched->term == term) dispatch({from.port, std::move(*dispatched)}, now, out);
  } else if (const auto* revoked = std::get_if<protocol::Revoke>(&message)) {
    if (revoked->term == term) revoke(from.port, *revoked);
  } else {
    log_warn("unexpected_message", {{"kind", protocol::message_name(message)}});
  }
}

void ConverterService::dispatch(Lease lease, Instant now, transport::Outbox& out) {
  if (draining_) {
    fail(lease, refuse(ErrorCode::kUnavailable, "the converter is stopping"), true, out);
    return;
  }
  const auto is_same = [&lease](const JobId& job, const protocol::ConvertSpec& spec) {
    return job == lease.dispatch.job && spec == lease.dispatch.spec;
  };
  if (last_success_ && is_same(last_success_->job, last_success_->spec)) {
    report_success(lease, out);
    return;
  }
  if (runs_for(lease.scheduler) && !running_->cancelled &&
      is_same(running_->lease.dispatch.job, running_->lease.dispatch.spec)) {
    running_->lease = std::move(lease);  // the same lease again, or the next one of a conversion that goes on
    running_->leased = true;
    running_->kept_until = Instant::max();
    log_info("conversion_continued", {{"job", running_->lease.dispatch.job.hex()}});
    return;
  }
  if (!running_) {
    start(std::move(lease), now);
    announce(now, out);
    return;
  }
  const bool busy = runs_for(lease.scheduler) && running_->leased && !running_->cancelled;
  if (busy || waiting_ || is_taken_from(lease.scheduler, now)) {
    announce(now, out);  // first: a scheduler that reads the refusal must not try here again
    fail(lease, refuse(ErrorCode::kBusy, "the converter already runs a conversion"), true, out);
    return;
  }
  cancel_running();
  waiting_ = std::move(lease);
  announce(now, out);
}

bool ConverterService::is_taken_from(transport::PortId scheduler, Instant now) const {
  if (waiting_) return waiting_->scheduler != scheduler;
  return running_ && !running_->cancelled && !runs_for(scheduler) && now < running_->kept_until;
}

void ConverterService::set_loads(Instant now) {
  for (size_t i = 0; i < links_.size(); ++i) {
    const transport::PortId scheduler = links_.port(i);
    const bool holds = runs_for(scheduler) && running_->leased;
    links_.of(scheduler).set_load(
        {.steps = finished_, .running = holds ? 1 : 0, .draining = draining_ || is_taken_from(scheduler, now)});
  }
}

void ConverterService::announce(Instant now, transport::Outbox& out) {
  set_loads(now);
  links_.beat(now, out);
}

void ConverterService::start(Lease lease, Instant now) {
  log_info("conversion_started", {{"job", lease.dispatch.job.hex()},
                                  {"source", lease.dispatch.spec.source},
                                  trace_field(lease.dispatch.traceparent)});
  conversions_.start(lease.dispatch.spec);
  running_ = Work{std::move(lease)};
  running_gauge_.set(1);
  started_at_ = now;
  measured_bytes_ = 0;
  next_progress_ = now + kProgressInterval;
}

void ConverterService::revoke(transport::PortId scheduler, const protocol::Revoke& revoked) {
  const auto names = [&](const Lease& lease) {
    return lease.scheduler == scheduler &&
           std::find(revoked.leases.begin(), revoked.leases.end(), lease.dispatch.lease) != revoked.leases.end();
  };
  if (waiting_ && names(*waiting_)) waiting_.reset();
  if (running_ && running_->leased && names(running_->lease)) cancel_running();
}

void ConverterService::on_registered(transport::PortId scheduler, bool new_term, Instant now) {
  if (!new_term) {  // the same scheduler revokes what it gave to others
    if (runs_for(scheduler) && running_->leased) running_->kept_until = Instant::max();
    return;
  }
  if (waiting_ && waiting_->scheduler == scheduler) waiting_.reset();
  if (!runs_for(scheduler)) return;
  running_->leased = false;
  running_->kept_until = now + kKeptWithoutLease;
}

void ConverterService::on_lost(transport::PortId scheduler, Instant now) {
  if (waiting_ && waiting_->scheduler == scheduler) waiting_.reset();
  if (runs_for(scheduler)) running_->kept_until = now + kKeptWithoutLease;
}

void ConverterService::cancel_running() {
  if (running_->cancelled) return;
  running_->cancelled = true;
  log_info("conversion_cancelled", {{"job", running_->lease.dispatch.job.hex()}});
  conversions_.cancel();
}

void ConverterService::fail(const Lease& lease, const Refusal& why, bool transient, transport::Outbox& out) const {
  const auto& [scheduler, dispatch] = lease;
  out.send({scheduler, {}}, protocol::LeaseFailed{dispatch.term, dispatch.lease, why.code, why.message, transient});
}

void ConverterService::report_success(const Lease& lease, transport::Outbox& out) const {
  const auto& [scheduler, dispatch] = lease;
  const int64_t bytes = last_success_->bytes;
  out.send({scheduler, {}},
           protocol::ConvertProgress{dispatch.term, dispatch.lease, bytes, bytes, last_success_->summary, true});
}

void ConverterService::finish(const ConversionEnd& end, Instant now, transport::Outbox& out) {
  const Work work = *std::exchange(running_, std::nullopt);
  const protocol::ConvertDispatch& dispatch = work.lease.dispatch;
  running_gauge_.set(0);
  progress_gauge_.set(0);
  ++finished_;
  if (!end.refused) {
    succeeded_.add();
    duration_.observe(std::chrono::duration<double>(now - started_at_).count());
    log_info("conversion_finished",
             {{"job", dispatch.job.hex()}, {"summary", end.summary}, trace_field(dispatch.traceparent)});
    last_success_ = Success{dispatch.job, dispatch.spec, end.summary, conversions_.state().bytes_total};
    if (work.leased && !work.cancelled) report_success(work.lease, out);
  } else if (work.cancelled) {
    cancelled_.add();
  } else {
    failed_.add();
    log_warn("conversion_failed",
             {{"job", dispatch.job.hex()}, {"why", end.refused->message}, trace_field(dispatch.traceparent)});
    if (work.leased) fail(work.lease, *end.refused, end.transient, out);
  }
}

void ConverterService::measure_progress() {
  if (!running_) return;
  const ConversionState state = conversions_.state();
  if (state.bytes_done > measured_bytes_) bytes_counter_.add(static_cast<double>(state.bytes_done - measured_bytes_));
  measured_bytes_ = std::max(measured_bytes_, state.bytes_done);
  if (state.bytes_total <= 0) return;
  progress_gauge_.set(static_cast<double>(state.bytes_done) / static_cast<double>(state.bytes_total));
}

void ConverterService::report_progress(Instant now, transport::Outbox& out) {
  if (!running_ || !running_->leased || running_->cancelled || now < next_progress_) return;
  next_progress_ = now + kProgressInterval;
  const ConversionState state = conversions_.state();
  if (state.bytes_total <= 0) return;
  // Only the last progress message may say that everything is done.
  const int64_t done = std::min(state.bytes_done, state.bytes_total - 1);
  const auto& [scheduler, dispatch] = running_->lease;
  out.send({scheduler, {}},
           protocol::ConvertProgress{dispatch.term, dispatch.lease, done, state.bytes_total, {}, false});
}

void ConverterService::on_tick(Instant now, transport::Outbox& out) {
  const bool was_running = running_.has_value();
  measure_progress();
  if (const std::optional<ConversionEnd> end = conversions_.take_end()) finish(*end, now, out);
  if (waiting_ && !running_) start(*std::exchange(waiting_, std::nullopt), now);
  report_progress(now, out);
  if (was_running && !running_) {
    announce(now, out);  // the place is free
  } else {
    set_loads(now);
  }
  links_.on_tick(now, out);
  health_.ready = links_.is_registered() && !draining_;
  if (is_drained()) links_.goodbye(out);
}

void ConverterService::begin_drain(Instant now, transport::Outbox& out) {
  draining_ = true;
  health_.ready = false;
  if (waiting_) {
    fail(*waiting_, refuse(ErrorCode::kUnavailable, "the converter is stopping"), true, out);
    waiting_.reset();
  }
  if (running_ && !running_->leased) cancel_running();
  announce(now, out);
  if (is_drained()) links_.goodbye(out);
}

void ConverterService::on_undeliverable(const transport::Peer& to, protocol::Message message, bool, Instant now,
                                        transport::Outbox&) {
  links_.on_undeliverable(to, message, now);
}

}  // namespace optserve::converter
