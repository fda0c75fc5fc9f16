#include "report.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace optserve::chaos {
namespace {

constexpr size_t kViolationsShown = 30;

__attribute__((format(printf, 1, 2))) std::string format(const char* pattern, ...) {
  char line[256];
  va_list arguments;
  va_start(arguments, pattern);
  vsnprintf(line, sizeof line, pattern, arguments);
  va_end(arguments);
  return line;
}

double s(int64_t ms) { return static_cast<double>(ms) / 1000; }

std::string counts(const std::map<std::string, int64_t>& counted) {
  std::string text;
  for (const auto& [name, count] : counted) text += (text.empty() ? "" : ", ") + name + " " + std::to_string(count);
  return text.empty() ? "none" : text;
}

std::string usage_text(const Usage& usage) {
  return format("%.1f MiB, %d threads, %d descriptors", static_cast<double>(usage.rss_kb) / 1024, usage.threads,
                usage.descriptors);
}

nlohmann::ordered_json times_json(const Times& times) {
  return {{"count", times.count}, {"p50_ms", times.p50_ms}, {"max_ms", times.max_ms}};
}

nlohmann::ordered_json usage_json(const Usage& usage) {
  return {{"rss_kb", usage.rss_kb}, {"threads", usage.threads}, {"descriptors", usage.descriptors}};
}

}  // namespace

std::string report_text(const Report& report) {
  const Totals& jobs = report.jobs;
  const auto number = [](int64_t value) { return std::to_string(value); };
  std::string text = "seed " + std::to_string(report.seed) + ", " + number(report.seconds) + " s, " +
                     format("%.1f jobs/s, ", report.load) + report.network + "\n";
  for (const std::string& skipped : report.skipped) text += "skipped: " + skipped + "\n";
  text += "jobs: " + number(jobs.submitted) + " submitted, " + number(jobs.accepted) + " accepted, " +
          number(jobs.undecided) + " submits without an answer or while draining, " + number(jobs.repeated) +
          " accepted again under their key, " + number(jobs.conflicts) + " conflicts\n";
  text += "refused: " + counts(jobs.refused) + "\n";
  text += "ended: " + counts(jobs.finals) + "; " + number(jobs.retried) + " lost a worker, " + number(jobs.pieces) +
          " pieces of text\n";
  text += "faults: " + counts(report.faults) + "\n";
  text += "from a fault until a job accepted after it had succeeded:\n";
  for (const auto& [fault, times] : report.recovery) {
    text += format("  %-16s %4ld   p50 %6.2f s   max %6.2f s\n", fault.c_str(), static_cast<long>(times.count),
                   s(times.p50_ms), s(times.max_ms));
  }
  text += format(
      "jobs that lost a worker: longest time without news, faults of scheduler and client apart, "
      "p50 %.2f s, max %.2f s\n",
      s(report.retried.p50_ms), s(report.retried.max_ms));
  text += format("longest time in which no client received anything: %.2f s\n", s(report.silence_ms));
  text += format("every process registered %.2f s after the last fault\n", s(report.ready_ms));
  text += "scheduler before: " + usage_text(report.before) + "\n";
  text += "scheduler after:  " + usage_text(report.after) + "\n";
  for (size_t i = 0; i < std::min(report.violations.size(), kViolationsShown); ++i) {
    text += "VIOLATION: " + report.violations[i] + "\n";
  }
  text += report.violations.empty() ? "no violation\n"
                                    : number(static_cast<int64_t>(report.violations.size())) + " violations; seed " +
                                          std::to_string(report.seed) + "\n";
  return text;
}

std::string report_json(const Report& report) {
  const Totals& jobs = report.jobs;
  nlohmann::ordered_json recovery = nlohmann::ordered_json::object();
  for (const auto& [fault, times] : report.recovery) recovery[fault] = times_json(times);
  const nlohmann::ordered_json json = {{"seed", report.seed},
                                       {"seconds", report.seconds},
                                       {"jobs_per_second", report.load},
                                       {"network", report.network},
                                       {"skipped", report.skipped},
                                       {"jobs",
                                        {{"submitted", jobs.submitted},
                                         {"accepted", jobs.accepted},
                                         {"unanswered_or_draining", jobs.undecided},
                                         {"accepted_again", jobs.repeated},
                                         {"conflicts", jobs.conflicts},
                                         {"lost_a_worker", jobs.retried},
                                         {"pieces", jobs.pieces},
                                         {"refused", jobs.refused},
                                         {"ended", jobs.finals}}},
                                       {"faults", report.faults},
                                       {"recovery", recovery},
                                       {"silence_of_retried_jobs", times_json(report.retried)},
                                       {"longest_silence_ms", report.silence_ms},
                                       {"all_registered_after_ms", report.ready_ms},
                                       {"scheduler_before", usage_json(report.before)},
                                       {"scheduler_after", usage_json(report.after)},
                                       {"violations", report.violations}};
  return json.dump(2) + "\n";
}

}  // namespace optserve::chaos
