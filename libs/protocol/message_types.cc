#include "protocol/message_types.h"

#include "protocol/client_messages.h"
#include "protocol/service_messages.h"

namespace optserve::protocol {

std::string_view job_state_name(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kRunning:
      return "running";
    case JobState::kSucceeded:
      return "succeeded";
    case JobState::kFailed:
      return "failed";
    case JobState::kCancelled:
      return "cancelled";
    case JobState::kExpired:
      return "expired";
    case JobState::kDead:
      return "dead";
  }
  return "unknown";
}

std::string_view finish_reason_name(sampling::FinishReason reason) {
  switch (reason) {
    case sampling::FinishReason::kNone:
      return "none";
    case sampling::FinishReason::kEndOfText:
      return "end_of_text";
    case sampling::FinishReason::kLength:
      return "length";
    case sampling::FinishReason::kStop:
      return "stop";
    case sampling::FinishReason::kCancelled:
      return "cancelled";
    case sampling::FinishReason::kError:
      return "error";
  }
  return "unknown";
}

std::string_view job_kind_name(JobKind kind) { return kind == JobKind::kConvert ? "convert" : "generate"; }

std::string_view service_kind_name(ServiceKind kind) {
  switch (kind) {
    case ServiceKind::kTokenizer:
      return "tokenizer";
    case ServiceKind::kWorker:
      return "worker";
    case ServiceKind::kConverter:
      return "converter";
  }
  return "unknown";
}

std::string_view queue_mode_name(QueueMode mode) {
  switch (mode) {
    case QueueMode::kOpen:
      return "open";
    case QueueMode::kPaused:
      return "paused";
    case QueueMode::kDraining:
      return "draining";
  }
  return "unknown";
}

namespace {
constexpr size_t kEnvelopeCost = 64;  // about what a message takes besides its content
}

// FNV-1a: it distinguishes two texts of one model, and nobody gains by making two that collide.
uint64_t text_digest(std::string_view text, uint64_t before) {
  uint64_t digest = before;
  for (const char c : text) digest = (digest ^ static_cast<uint8_t>(c)) * 0x100000001b3;
  return digest == 0 ? 1 : digest;
}

size_t stream_cost(const JobEvent& event) { return kEnvelopeCost + event.text.size(); }

size_t stream_cost(const JobResult& result) {
  size_t best = 0;
  for (const auto& tokens : result.best) best += tokens.size();
  for (const auto& tokens : result.prompt_best) best += tokens.size();
  return 4 * kEnvelopeCost + result.text.size() + result.message.size() + 3 * result.ids.size() +
         5 * (result.prompt_logprobs.size() + result.logprobs.size()) + 9 * best;
}

}  // namespace optserve::protocol
