// The converter's side of the wire: one conversion at a time, its progress at most five times a second. Pure: the
// conversion is behind ConversionPort.
//
// A conversion outlives the scheduler that asked for it. Its lease is then void, but when the job is leased again, the
// conversion goes on under the new lease, or its end is reported again; it does not start anew.
//
// All schedulers share the one place for a conversion. While it is taken, heartbeats tell the other schedulers that
// this service wants no work. If the scheduler of a running conversion goes away, the conversion keeps the place for a
// while, since that scheduler may come back.
#pragma once

#include <optional>

#include "converter/service/conversion_port.h"
#include "metrics/health.h"
#include "metrics/metrics.h"
#include "transport/scheduler_links.h"
#include "transport/service.h"

namespace optserve::converter {

class ConverterService final : public transport::Service {
 public:
  // `hello` says who this is; kind and capacity are filled in. `health` is ready while registered with at
  // least one scheduler.
  ConverterService(ConversionPort& conversions, protocol::Register hello, const transport::SchedulerLinkOptions& link,
                   metrics::Registry& registry, metrics::Health& health);

  void on_message(const transport::Peer& from, protocol::Message message, Instant now, transport::Outbox& out) override;
  void on_undeliverable(const transport::Peer& to, protocol::Message message, bool slow, Instant now,
                        transport::Outbox& out) override;
  void on_connected(transport::PortId port, Instant now, transport::Outbox& out) override {
    links_.on_connected(port, now, out);
  }
  void on_tick(Instant now, transport::Outbox& out) override;
  Duration tick_interval() const override { return milliseconds(50); }
  void begin_drain(Instant now, transport::Outbox& out) override;
  bool is_drained() const override { return draining_ && !running_ && !waiting_; }

 private:
  // A conversion and the scheduler that leased it.
  struct Lease {
    transport::PortId scheduler = 0;
    protocol::ConvertDispatch dispatch;
  };
  struct Work {
    Lease lease;
    bool leased = true;      // false: its lease is void until the same job is leased again
    bool cancelled = false;  // its end is reported to nobody
    // Until then schedulers other than its own get nothing started; set once its own has gone.
    Instant kept_until = Instant::max();
  };
  // The last conversion that succeeded.
  struct Success {
    JobId job;
    protocol::ConvertSpec spec;
    std::string summary;
    int64_t bytes = 0;
  };

  void dispatch(Lease lease, Instant now, transport::Outbox& out);
  void start(Lease lease, Instant now);
  void revoke(transport::PortId scheduler, const protocol::Revoke& revoked);
  void on_registered(transport::PortId scheduler, bool new_term, Instant now);
  void on_lost(transport::PortId scheduler, Instant now);
  bool runs_for(transport::PortId scheduler) const { return running_ && running_->lease.scheduler == scheduler; }
  void cancel_running();
  // A scheduler other than this one has the only place.
  bool is_taken_from(transport::PortId scheduler, Instant now) const;
  void set_loads(Instant now);
  // Tells all schedulers at once who may lease.
  void announce(Instant now, transport::Outbox& out);
  void measure_progress();
  void report_progress(Instant now, transport::Outbox& out);
  void finish(const ConversionEnd& end, Instant now, transport::Outbox& out);
  void report_success(const Lease& lease, transport::Outbox& out) const;
  void fail(const Lease& lease, const Refusal& why, bool transient, transport::Outbox& out) const;

  ConversionPort& conversions_;
  transport::SchedulerLinks links_;
  metrics::Health& health_;
  metrics::Counter succeeded_, failed_, cancelled_;
  metrics::Gauge running_gauge_, progress_gauge_;
  metrics::Counter bytes_counter_;
  metrics::Histogram duration_;
  std::optional<Work> running_;
  std::optional<Lease> waiting_;  // leased while a cancelled conversion still runs
  std::optional<Success> last_success_;
  Instant next_progress_{};
  Instant started_at_{};
  int64_t measured_bytes_ = 0;  // of the running conversion
  uint64_t finished_ = 0;
  bool draining_ = false;
};

}  // namespace optserve::converter
