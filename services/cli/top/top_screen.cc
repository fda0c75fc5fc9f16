#include "cli/top/top_screen.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <utility>

#include "base/utf8.h"
#include "cli/text/text_table.h"

namespace optserve::cli {
namespace {

using protocol::ModelStatus;
using protocol::QueueMode;
using protocol::ServiceStatus;
using protocol::SystemStatus;

struct Totals {
  size_t answering = 0;
  int64_t queued = 0, running = 0, succeeded = 0, failed = 0, cancelled = 0, expired = 0;
  double tokens_per_second = 0;
  int64_t ended() const { return succeeded + failed + cancelled + expired; }
};

Totals totals_of(const SystemLook& look) {
  Totals totals;
  for (const auto& [endpoint, answer] : look.answers) {
    if (!answer.ok()) continue;
    const SystemStatus& status = answer.value();
    ++totals.answering;
    totals.queued += status.queued;
    totals.running += status.running;
    totals.succeeded += status.finished;
    totals.failed += status.failed;
    totals.cancelled += status.cancelled;
    totals.expired += status.expired;
    for (const ModelStatus& model : status.models) totals.tokens_per_second += model.tokens_per_second;
  }
  return totals;
}

std::string rate_text(double per_second) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), per_second < 10 ? "%.1f" : "%.0f", per_second);
  return text.data();
}

// " (12/s)", of jobs that have ended since the previous look. The counts of a scheduler that was restarted begin at
// zero.
std::string ended_rate(const SystemLook& now, const std::optional<SystemLook>& before) {
  if (!before || now.at <= before->at) return "";
  const int64_t ended = totals_of(now).ended() - totals_of(*before).ended();
  const double seconds = std::chrono::duration<double>(now.at - before->at).count();
  return ended < 0 ? "" : " (" + rate_text(static_cast<double>(ended) / seconds) + "/s)";
}

std::string scheduler_line(const client::SchedulerAnswer<SystemStatus>& scheduler) {
  if (!scheduler.answer.ok()) return scheduler.endpoint + "  " + scheduler.answer.refusal().message;
  const SystemStatus& status = scheduler.answer.value();
  std::string text = scheduler.endpoint + "  term " + std::to_string(status.term) + ", ";
  text += status.durable ? "durable" : "volatile";
  if (status.mode != QueueMode::kOpen) text += ", " + std::string(protocol::queue_mode_name(status.mode));
  if (status.draining) text += ", stopping";
  if (status.read_only) text += ", READ-ONLY: the disk of the journal is full";
  return text + "  " + std::to_string(status.queued) + " queued, " + std::to_string(status.running) + " running";
}

// A model's queues at all schedulers as one.
std::string models_table(const SystemLook& look) {
  std::map<std::string, ModelStatus> models;
  for (const auto& [endpoint, answer] : look.answers) {
    if (!answer.ok()) continue;
    for (const ModelStatus& part : answer.value().models) {
      const auto [found, is_first] = models.try_emplace(part.name, part);
      if (is_first) continue;
      ModelStatus& model = found->second;
      model.queued += part.queued;
      model.running += part.running;
      model.tokens_per_second += part.tokens_per_second;
      model.eta_ms = std::max(model.eta_ms, part.eta_ms);
      if (part.mode != QueueMode::kOpen) model.mode = part.mode;
    }
  }
  if (models.empty()) return "";
  std::vector<TextRow> rows{{"MODEL", "QUEUE", "QUEUED", "RUNNING", "TOKENS/S", "WAIT"}};
  for (const auto& [name, model] : models) {
    rows.push_back({name, std::string(protocol::queue_mode_name(model.mode)), std::to_string(model.queued),
                    std::to_string(model.running),
                    model.tokens_per_second > 0 ? rate_text(model.tokens_per_second) : "-",
                    model.eta_ms >= 0 ? duration_text(model.eta_ms) : "-"});
  }
  return text_table(rows);
}

// "[#####.....]": how many of a service's places are taken.
std::string load_bar(int32_t running, int32_t capacity) {
  constexpr int kWidth = 10;
  if (capacity <= 0) return "-";
  const int filled = static_cast<int>(std::lround(kWidth * std::min(1.0, static_cast<double>(running) / capacity)));
  return "[" + std::string(static_cast<size_t>(filled), '#') + std::string(static_cast<size_t>(kWidth - filled), '.') +
         "] " + std::to_string(running) + "/" + std::to_string(capacity);
}

// A service is registered with every scheduler and has one line.
std::string services_table(const SystemLook& look) {
  std::map<std::pair<std::string, std::string>, ServiceStatus> services;
  for (const auto& [endpoint, answer] : look.answers) {
    if (!answer.ok()) continue;
    for (const ServiceStatus& part : answer.value().services) {
      const auto [found, is_first] = services.try_emplace({part.kind, part.instance}, part);
      if (is_first) continue;
      ServiceStatus& service = found->second;
      service.running += part.running;
      service.capacity += part.capacity;
      service.silent_ms = std::min(service.silent_ms, part.silent_ms);
      service.draining = service.draining || part.draining;
      service.paused = service.paused || part.paused;
    }
  }
  if (services.empty()) return "no tokenizer, worker or converter is connected\n";
  std::vector<TextRow> rows{{"KIND", "NAME", "MODELS", "LOAD", "HEARD", "STATE"}};
  for (const auto& [key, service] : services) {
    std::string models;
    for (const std::string& model : service.models) models += (models.empty() ? "" : ",") + model;
    rows.push_back({service.kind, service.name, models, load_bar(service.running, service.capacity),
                    duration_text(service.silent_ms) + " ago",
                    service.paused     ? "paused"
                    : service.draining ? "draining"
                                       : "ready"});
  }
  return text_table(rows);
}

void add_lines(std::vector<std::string>& lines, const std::string& text) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
}

void fit(std::vector<std::string>& lines, const ScreenSize& size) {
  if (size.rows > 0 && lines.size() > size.rows) {
    const size_t left_out = lines.size() - size.rows + 1;
    lines.resize(size.rows);
    lines.back() = "... " + std::to_string(left_out) + " more lines";
  }
  for (std::string& line : lines) {
    if (size.columns > 0 && line.size() > size.columns) line.resize(size.columns);
    line.resize(valid_utf8_prefix(line));
  }
}

}  // namespace

std::vector<std::string> top_screen(const SystemLook& now, const std::optional<SystemLook>& before,
                                    const ScreenSize& size) {
  const Totals totals = totals_of(now);
  std::vector<std::string> lines;
  lines.push_back("optserve top  " + utc_text(now.wall_ms) + " UTC  schedulers " + std::to_string(totals.answering) +
                  " of " + std::to_string(now.answers.size()));
  lines.push_back("queued " + std::to_string(totals.queued) + "  running " + std::to_string(totals.running) +
                  "  succeeded " + std::to_string(totals.succeeded) + "  failed " + std::to_string(totals.failed) +
                  "  cancelled " + std::to_string(totals.cancelled) + "  expired " + std::to_string(totals.expired) +
                  ended_rate(now, before) + "  tokens/s " + rate_text(totals.tokens_per_second));
  lines.emplace_back();
  for (const auto& scheduler : now.answers) lines.push_back(scheduler_line(scheduler));
  lines.emplace_back();
  const std::string models = models_table(now);
  add_lines(lines, models);
  if (!models.empty()) lines.emplace_back();
  add_lines(lines, services_table(now));
  fit(lines, size);
  return lines;
}

}  // namespace optserve::cli
