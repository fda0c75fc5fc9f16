// The tokenizer's side of the wire: registers its models with all schedulers, answers Encode and Decode to whoever
// asks. Stateless, so it leaves at once when asked to stop: a scheduler asks another tokenizer again.
#pragma once

#include "metrics/health.h"
#include "metrics/metrics.h"
#include "tokenizer/text_server.h"
#include "transport/scheduler_links.h"
#include "transport/service.h"

namespace optserve::tokenizer {

struct TokenizerMetrics {
  explicit TokenizerMetrics(metrics::Registry& registry);

  metrics::Counter texts_encoded;   // items, refused ones included
  metrics::Counter bytes_encoded;   // of their text
  metrics::Counter pieces_decoded;  // items, refused ones included
  metrics::Counter ids_decoded;
  metrics::Counter encode_errors;
  metrics::Counter decode_errors;
  metrics::Histogram encode_seconds;  // these two: of one question, which may hold many items
  metrics::Histogram decode_seconds;
};

class TokenizerService final : public transport::Service {
 public:
  // `hello` says who this is; kind and models are filled in here. `health` is ready while the service is registered
  // with at least one scheduler.
  TokenizerService(TextServer texts, protocol::Register hello, const transport::SchedulerLinkOptions& link,
                   metrics::Registry& registry, metrics::Health& health);

  void on_message(const transport::Peer& from, protocol::Message message, Instant now, transport::Outbox& out) override;
  void on_undeliverable(const transport::Peer& to, protocol::Message message, bool slow, Instant now,
                        transport::Outbox& out) override;
  void on_connected(transport::PortId port, Instant now, transport::Outbox& out) override {
    links_.on_connected(port, now, out);
  }
  void on_tick(Instant now, transport::Outbox& out) override;
  void begin_drain(Instant now, transport::Outbox& out) override;
  bool is_drained() const override { return draining_; }

 private:
  // Counts the items of an answer, and those of them that are errors.
  template <class Item>
  void count(const std::vector<Item>& items, metrics::Counter& all, metrics::Counter& errors);
  void encode(const transport::Peer& from, const protocol::Encode& request, transport::Outbox& out);
  void decode(const transport::Peer& from, const protocol::Decode& request, transport::Outbox& out);

  TextServer texts_;
  transport::SchedulerLinks links_;
  TokenizerMetrics metrics_;
  metrics::Health& health_;
  uint64_t answers_ = 0;
  bool draining_ = false;
};

}  // namespace optserve::tokenizer
