// The converter's side of the wire: one conversion at a time, its progress at most five times a second. Pure: the
// conversion is behind ConversionPort.
//
// A conversion outlives the scheduler that asked for it: its lease is void, but when the job is leased again, the work
// goes on under the new lease, or its end is reported again, instead of a start over an existing destination.
#pragma once

#include <optional>

#include "converter/conversion_port.h"
#include "metrics/http_server.h"
#include "metrics/metrics.h"
#include "transport/scheduler_link.h"
#include "transport/service.h"

namespace optserve::converter {

class ConverterService final : public transport::Service {
 public:
  // `hello` says who this is; kind and capacity are filled in. `health` becomes ready while registered.
  ConverterService(ConversionPort& conversions, protocol::Register hello, const transport::SchedulerLinkOptions& link,
                   Registry& registry, Health& health);

  void on_message(const transport::Peer& from, protocol::Message message, Instant now, transport::Outbox& out) override;
  void on_undeliverable(const transport::Peer& to, protocol::Message message, bool slow, Instant now,
                        transport::Outbox& out) override;
  void on_tick(Instant now, transport::Outbox& out) override;
  Duration tick_interval() const override { return milliseconds(50); }
  void begin_drain(Instant now, transport::Outbox& out) override;
  bool is_drained() const override { return draining_ && !running_ && !waiting_; }

 private:
  struct Work {
    protocol::ConvertDispatch dispatch;
    bool leased = true;      // false: its lease is void until the same job is leased again
    bool cancelled = false;  // its end interests nobody
  };
  // The last conversion that succeeded.
  struct Success {
    JobId job;
    protocol::ConvertSpec spec;
    std::string summary;
    int64_t bytes = 0;
  };

  void dispatch(protocol::ConvertDispatch dispatch, Instant now, transport::Outbox& out);
  void start(protocol::ConvertDispatch dispatch, Instant now);
  void revoke(const protocol::Revoke& revoked);
  void void_leases(bool new_term);
  void cancel_running();
  void report_progress(Instant now, transport::Outbox& out);
  void finish(const ConversionEnd& end, transport::Outbox& out);
  void report_success(const protocol::ConvertDispatch& dispatch, transport::Outbox& out) const;
  void fail(const protocol::ConvertDispatch& dispatch, const Refusal& why, bool transient,
            transport::Outbox& out) const;
  transport::Peer scheduler() const { return {port_, {}}; }

  ConversionPort& conversions_;
  transport::PortId port_;
  transport::SchedulerLink link_;
  Health& health_;
  Counter succeeded_, failed_, cancelled_;
  Gauge running_gauge_;
  std::optional<Work> running_;
  std::optional<protocol::ConvertDispatch> waiting_;  // leased while a cancelled conversion still runs
  std::optional<Success> last_success_;
  Instant next_progress_{};
  uint64_t finished_ = 0;
  bool draining_ = false;
};

}  // namespace optserve::converter
