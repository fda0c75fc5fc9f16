#include "tokenizer/tokenizer_service.h"

#include <chrono>
#include <utility>

#include "base/log.h"
#include "base/trace_context.h"

namespace optserve::tokenizer {
namespace {

protocol::Register complete(protocol::Register hello, const TextServer& texts) {
  hello.kind = protocol::ServiceKind::kTokenizer;
  hello.models = texts.model_infos();
  return hello;
}

metrics::Histogram duration(metrics::Registry& registry, const char* operation) {
  return registry.histogram("optserve_tokenizer_answer_seconds", "Time to answer a question of a scheduler",
                            {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5},
                            {{"operation", operation}});
}

// Observes the time until the end of its scope.
class Timing {
 public:
  Timing(const Clock& clock, const metrics::Histogram& histogram)
      : clock_(clock), histogram_(histogram), begun_(clock.now()) {}
  ~Timing() { histogram_.observe(std::chrono::duration<double>(clock_.now() - begun_).count()); }
  Timing(const Timing&) = delete;
  Timing& operator=(const Timing&) = delete;

 private:
  const Clock& clock_;
  const metrics::Histogram& histogram_;
  const Instant begun_;
};

}  // namespace

TokenizerMetrics::TokenizerMetrics(metrics::Registry& registry)
    : texts_encoded(registry.counter("optserve_tokenizer_texts_encoded_total", "Prompts turned into ids")),
      bytes_encoded(registry.counter("optserve_tokenizer_encoded_bytes_total", "Bytes of prompts turned into ids")),
      pieces_decoded(registry.counter("optserve_tokenizer_pieces_decoded_total", "Pieces of output turned into text")),
      ids_decoded(registry.counter("optserve_tokenizer_ids_decoded_total", "Ids turned into text")),
      encode_errors(registry.counter("optserve_tokenizer_errors_total", "Items answered with an error",
                                     {{"operation", "encode"}})),
      decode_errors(registry.counter("optserve_tokenizer_errors_total", "Items answered with an error",
                                     {{"operation", "decode"}})),
      encode_seconds(duration(registry, "encode")),
      decode_seconds(duration(registry, "decode")) {}

TokenizerService::TokenizerService(TextServer texts, protocol::Register hello,
                                   const transport::SchedulerLinkOptions& link, metrics::Registry& registry,
                                   metrics::Health& health)
    : texts_(std::move(texts)),
      links_(complete(std::move(hello), texts_), link, {}),
      metrics_(registry),
      health_(health) {}

void TokenizerService::on_message(const transport::Peer& from, protocol::Message message, Instant now,
                                  transport::Outbox& out) {
  if (links_.on_message(from, message, now, out)) {
    health_.ready = links_.is_registered() && !draining_;
  } else if (const auto* to_ids = std::get_if<protocol::Encode>(&message)) {
    encode(from, *to_ids, out);
  } else if (const auto* to_text = std::get_if<protocol::Decode>(&message)) {
    decode(from, *to_text, out);
  } else {
    log_warn("unexpected_message", {{"kind", protocol::message_name(message)}});
  }
}

template <class Item>
void TokenizerService::count(const std::vector<Item>& items, metrics::Counter& all, metrics::Counter& errors) {
  all.add(static_cast<double>(items.size()));
  answers_ += items.size();
  for (const Item& item : items) {
    if (item.error) errors.add();
  }
}

void TokenizerService::encode(const transport::Peer& from, const protocol::Encode& request, transport::Outbox& out) {
  const Timing timing(health_.clock, metrics_.encode_seconds);
  for (const protocol::EncodeItem& item : request.items) {
    metrics_.bytes_encoded.add(static_cast<double>(item.text.size()));
    if (is_sampled(item.traceparent)) {
      log_info("prompt_encoded", {{"model", item.model}, {"bytes", item.text.size()}, trace_field(item.traceparent)});
    }
  }
  for (protocol::Encoded& answer : texts_.encode(request)) {
    count(answer.items, metrics_.texts_encoded, metrics_.encode_errors);
    out.send(from, std::move(answer));
  }
}

void TokenizerService::decode(const transport::Peer& from, const protocol::Decode& request, transport::Outbox& out) {
  const Timing timing(health_.clock, metrics_.decode_seconds);
  for (const protocol::DecodeItem& item : request.items) metrics_.ids_decoded.add(static_cast<double>(item.ids.size()));
  for (protocol::Decoded& answer : texts_.decode(request)) {
    count(answer.items, metrics_.pieces_decoded, metrics_.decode_errors);
    out.send(from, std::move(answer));
  }
}

void TokenizerService::on_undeliverable(const transport::Peer& to, protocol::Message message, bool, Instant now,
                                        transport::Outbox&) {
  // An answer nobody receives is dropped: the scheduler asks again.
  links_.on_undeliverable(to, message, now);
}

void TokenizerService::on_tick(Instant now, transport::Outbox& out) {
  links_.set_load({answers_, 0, draining_});
  links_.on_tick(now, out);
  health_.ready = links_.is_registered() && !draining_;
}

void TokenizerService::begin_drain(Instant, transport::Outbox& out) {
  draining_ = true;
  health_.ready = false;
  links_.goodbye(out);
}

}  // namespace optserve::tokenizer
