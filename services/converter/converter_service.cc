#include "converter/converter_service.h"

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace optserve::converter {
namespace {

constexpr milliseconds kProgressInterval{200};

protocol::Register complete(protocol::Register hello) {
  hello.kind = protocol::ServiceKind::kConverter;
  hello.max_sequences = 1;
  return hello;
}

Counter counter(Registry& registry, const char* result) {
  return registry.counter("optserve_converter_conversions_total", "Conversions that ended", {{"result", result}});
}

}  // namespace

ConverterService::ConverterService(ConversionPort& conversions, protocol::Register hello,
                                   const transport::SchedulerLinkOptions& link, Registry& registry, Health& health)
    : conversions_(conversions),
      port_(link.port),
      link_(complete(std::move(hello)), link,
            {.on_registered = [this](uint64_t, bool new_term, Instant, transport::Outbox&) { void_leases(new_term); },
             .on_lost = {}}),
      health_(health),
      succeeded_(counter(registry, "succeeded")),
      failed_(counter(registry, "failed")),
      cancelled_(counter(registry, "cancelled")),
      running_gauge_(registry.gauge("optserve_converter_running", "1 while a conversion runs")) {}

void ConverterService::on_message(const transport::Peer&, protocol::Message message, Instant now,
                                  transport::Outbox& out) {
  if (link_.on_message(message, now, out)) {
    health_.ready = link_.is_registered() && !draining_;
  } else if (auto* dispatched = std::get_if<protocol::ConvertDispatch>(&message)) {
    if (dispatched->term == link_.term()) dispatch(std::move(*dispatched), now, out);
  } else if (const auto* revoked = std::get_if<protocol::Revoke>(&message)) {
    if (revoked->term == link_.term()) revoke(*revoked);
  } else {
    log_warn("unexpected_message", {{"kind", protocol::message_name(message)}});
  }
}

void ConverterService::dispatch(protocol::ConvertDispatch dispatch, Instant now, transport::Outbox& out) {
  if (draining_) {
    fail(dispatch, refuse(ErrorCode::kUnavailable, "the converter is stopping"), true, out);
    return;
  }
  if (last_success_ && last_success_->job == dispatch.job && last_success_->spec == dispatch.spec) {
    report_success(dispatch, out);
    return;
  }
  if (running_ && !running_->cancelled && running_->dispatch.job == dispatch.job &&
      running_->dispatch.spec == dispatch.spec) {
    running_->dispatch = std::move(dispatch);  // the same lease again, or the next one of a conversion that goes on
    running_->leased = true;
    log_info("conversion_continued", {{"job", running_->dispatch.job.hex()}});
    return;
  }
  if (!running_) {
    start(std::move(dispatch), now);
    return;
  }
  if ((running_->leased && !running_->cancelled) || waiting_) {
    fail(dispatch, refuse(ErrorCode::kBusy, "the converter already runs a conversion"), true, out);
    return;
  }
  cancel_running();
  waiting_ = std::move(dispatch);
}

void ConverterService::start(protocol::ConvertDispatch dispatch, Instant now) {
  log_info("conversion_started", {{"job", dispatch.job.hex()}, {"source", dispatch.spec.source}});
  conversions_.start(dispatch.spec);
  running_ = Work{std::move(dispatch)};
  running_gauge_.set(1);
  next_progress_ = now + kProgressInterval;
}

void ConverterService::revoke(const protocol::Revoke& revoked) {
  const auto names = [&](uint64_t lease) {
    return std::find(revoked.leases.begin(), revoked.leases.end(), lease) != revoked.leases.end();
  };
  if (waiting_ && names(waiting_->lease)) waiting_.reset();
  if (running_ && running_->leased && names(running_->dispatch.lease)) cancel_running();
}

void ConverterService::void_leases(bool new_term) {
  if (!new_term) return;  // the same scheduler revokes what it gave to others
  waiting_.reset();
  if (running_) running_->leased = false;
}

void ConverterService::cancel_running() {
  if (running_->cancelled) return;
  running_->cancelled = true;
  log_info("conversion_cancelled", {{"job", running_->dispatch.job.hex()}});
  conversions_.cancel();
}

void ConverterService::fail(const protocol::ConvertDispatch& dispatch, const Refusal& why, bool transient,
                            transport::Outbox& out) const {
  out.send(scheduler(), protocol::LeaseFailed{dispatch.term, dispatch.lease, why.code, why.message, transient});
}

void ConverterService::report_success(const protocol::ConvertDispatch& dispatch, transport::Outbox& out) const {
  const int64_t bytes = last_success_->bytes;
  out.send(scheduler(),
           protocol::ConvertProgress{dispatch.term, dispatch.lease, bytes, bytes, last_success_->summary, true});
}

void ConverterService::finish(const ConversionEnd& end, transport::Outbox& out) {
  const Work work = *std::exchange(running_, std::nullopt);
  const protocol::ConvertDispatch& dispatch = work.dispatch;
  running_gauge_.set(0);
  ++finished_;
  if (!end.refused) {
    succeeded_.add();
    log_info("conversion_finished", {{"job", dispatch.job.hex()}, {"summary", end.summary}});
    last_success_ = Success{dispatch.job, dispatch.spec, end.summary, conversions_.state().bytes_total};
    if (work.leased && !work.cancelled) report_success(dispatch, out);
  } else if (work.cancelled) {
    cancelled_.add();
  } else {
    failed_.add();
    log_warn("conversion_failed", {{"job", dispatch.job.hex()}, {"why", end.refused->message}});
    if (work.leased) fail(dispatch, *end.refused, end.transient, out);
  }
}

void ConverterService::report_progress(Instant now, transport::Outbox& out) {
  if (!running_ || !running_->leased || running_->cancelled || now < next_progress_) return;
  next_progress_ = now + kProgressInterval;
  const ConversionState state = conversions_.state();
  if (state.bytes_total <= 0) return;
  // Only the last message says that everything is done.
  const int64_t done = std::min(state.bytes_done, state.bytes_total - 1);
  out.send(scheduler(), protocol::ConvertProgress{
                            running_->dispatch.term, running_->dispatch.lease, done, state.bytes_total, {}, false});
}

void ConverterService::on_tick(Instant now, transport::Outbox& out) {
  if (const std::optional<ConversionEnd> end = conversions_.take_end()) finish(*end, out);
  if (waiting_ && !running_) start(*std::exchange(waiting_, std::nullopt), now);
  report_progress(now, out);
  const bool busy = running_ && running_->leased;
  link_.set_load({finished_, busy ? 1 : 0, draining_});
  link_.on_tick(now, out);
  health_.ready = link_.is_registered() && !draining_;
  if (is_drained()) link_.goodbye(out);
}

void ConverterService::begin_drain(Instant, transport::Outbox& out) {
  draining_ = true;
  health_.ready = false;
  if (waiting_) {
    fail(*waiting_, refuse(ErrorCode::kUnavailable, "the converter is stopping"), true, out);
    waiting_.reset();
  }
  if (running_ && !running_->leased) cancel_running();
  if (is_drained()) link_.goodbye(out);
}

void ConverterService::on_undeliverable(const transport::Peer&, protocol::Message message, bool, Instant now,
                                        transport::Outbox&) {
  link_.on_undeliverable(message, now);
}

}  // namespace optserve::converter
