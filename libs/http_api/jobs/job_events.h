// `GET /v1/jobs/{id}/events`: a job's output as server-sent events, which can resume at any byte.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "http_api/openai/api_error.h"
#include "protocol/client_messages.h"

namespace optserve::http_api {

// The byte of the text from which a client continues, from the header `Last-Event-ID`, which is empty at first.
Parsed<uint64_t> parse_last_event_id(std::string_view header);

// What a client that follows a job receives. Each function returns what to send now; after is_over() nothing follows.
class FollowForm {
 public:
  virtual ~FollowForm() = default;
  virtual std::string begin() { return ""; }  // once, before all others
  virtual std::string on_progress(const protocol::JobEvent& event) = 0;
  virtual std::string on_text(std::string_view piece) = 0;
  virtual std::string on_restarted() = 0;
  virtual std::string on_finished(const protocol::JobResult& result) = 0;
  virtual std::string on_lost(const Refusal& why) = 0;

  bool is_over() const { return is_over_; }

 protected:
  bool is_over_ = false;
};

// Each function returns frames; the last one ends the stream. The `id` of a frame is the number of bytes of text up to
// its end, so that a client that reconnects continues there:
//   event: progress    {"state", "position", "eta_ms", "tokens", "progress_done", "progress_total"}
//   event: text        {"text"}
//   event: restarted   {}: the text begins anew, at byte 0
//   event: finished    the job's result, as GET /v1/jobs/{id}/result gives it; nothing follows
//   event: error       {"error": …}: the job cannot be followed here; it goes on
class JobEventStream final : public FollowForm {
 public:
  explicit JobEventStream(uint64_t offset) : offset_(offset) {}

  std::string on_progress(const protocol::JobEvent& event) override;
  std::string on_text(std::string_view piece) override;
  std::string on_restarted() override;
  std::string on_finished(const protocol::JobResult& result) override;
  std::string on_lost(const Refusal& why) override;

 private:
  std::string frame(std::string_view event, const std::string& data) const;

  uint64_t offset_;
};

}  // namespace optserve::http_api
