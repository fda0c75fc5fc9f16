#include "http_api/jobs/job_events.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "base/input_check.h"
#include "job_json/job_json.h"

namespace optserve::http_api {

using job_json::json_text;
using nlohmann::ordered_json;

Parsed<uint64_t> parse_last_event_id(std::string_view header) {
  uint64_t offset = 0;
  if (header.empty()) return offset;
  const auto [end, error] = std::from_chars(header.data(), header.data() + header.size(), offset);
  if (error == std::errc{} && end == header.data() + header.size()) return offset;
  return invalid_value("Last-Event-ID", "Last-Event-ID is " + found_text(header) + ", expected a number of bytes");
}

std::string JobEventStream::frame(std::string_view event, const std::string& data) const {
  return "id: " + std::to_string(offset_) + "\nevent: " + std::string(event) + "\ndata: " + data + "\n\n";
}

std::string JobEventStream::on_progress(const protocol::JobEvent& event) {
  if (is_over_) return "";
  return frame("progress", json_text({{"state", protocol::job_state_name(event.state)},
                                      {"position", event.position},
                                      {"eta_ms", event.eta_ms},
                                      {"tokens", event.tokens},
                                      {"progress_done", event.progress_done},
                                      {"progress_total", event.progress_total}}));
}

std::string JobEventStream::on_text(std::string_view piece) {
  if (is_over_ || piece.empty()) return "";
  offset_ += piece.size();
  return frame("text", json_text({{"text", piece}}));
}

std::string JobEventStream::on_restarted() {
  if (is_over_) return "";
  offset_ = 0;
  return frame("restarted", "{}");
}

std::string JobEventStream::on_finished(const protocol::JobResult& result) {
  if (is_over_) return "";
  is_over_ = true;
  return frame("finished", json_text(job_json::result_json(result)));
}

std::string JobEventStream::on_lost(const Refusal& why) {
  if (is_over_) return "";
  is_over_ = true;
  return frame("error", error_body(error_of(why)));
}

}  // namespace optserve::http_api
