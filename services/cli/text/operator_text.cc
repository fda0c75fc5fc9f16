#include "cli/text/operator_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "cli/text/result_text.h"
#include "cli/text/text_table.h"
#include "job_json/job_json.h"

namespace optserve::cli {
namespace {

using nlohmann::ordered_json;
using protocol::JobResult;
using protocol::JobSummary;

std::string name_or_dash(const std::string& name) { return name.empty() ? "-" : name; }

std::string progress_text(int64_t done, int64_t total) {
  if (total > 0) return std::to_string(done) + "/" + std::to_string(total);
  return done > 0 ? std::to_string(done) : "-";
}

std::string fact(const char* name, const std::string& value) {
  if (value.empty()) return {};
  std::string text = std::string(name) + ":";
  text.resize(std::max<size_t>(text.size() + 1, 16), ' ');
  return text + value + "\n";
}

std::string timings_text(const protocol::Timings& timings) {
  return "encode " + duration_text(timings.encode_ms) + ", queue " + duration_text(timings.queue_ms) +
         ", first token " + duration_text(timings.first_token_ms) + ", run " + duration_text(timings.run_ms) +
         ", total " + duration_text(timings.total_ms);
}

}  // namespace

std::optional<protocol::JobState> parse_job_state(std::string_view name) {
  for (const protocol::JobState state : kJobStates) {
    if (protocol::job_state_name(state) == name) return state;
  }
  return std::nullopt;
}

JobListing list_jobs(client::Client& client, const protocol::JobFilter& filter, size_t limit, client::ListOrder order) {
  JobListing listing;
  const auto page = static_cast<uint32_t>(std::min(limit, limits::kJobsPerListMax));
  std::map<std::string, size_t> found;
  client::ListPosition after;
  do {
    client::Answers<protocol::JobList> answers = client.list(filter, page, after, order);
    after.clear();
    for (auto& scheduler : answers) {
      if (!scheduler.answer.ok()) {
        listing.unanswered.push_back(std::move(scheduler));
        continue;
      }
      const protocol::JobList& list = scheduler.answer.value();
      size_t& count = found[scheduler.endpoint] += list.jobs.size();
      listing.jobs.insert(listing.jobs.end(), list.jobs.begin(), list.jobs.end());
      if (!list.more || list.jobs.empty()) continue;
      if (count < limit) {
        after[scheduler.endpoint] = list.jobs.back().order;
      } else {
        listing.more = true;
      }
    }
  } while (!after.empty());
  const bool is_newest_first = order == client::ListOrder::kNewestFirst;
  std::ranges::stable_sort(listing.jobs, [=](const JobSummary& a, const JobSummary& b) {
    return is_newest_first ? a.accepted_wall_ms > b.accepted_wall_ms : a.accepted_wall_ms < b.accepted_wall_ms;
  });
  listing.more |= listing.jobs.size() > limit;
  if (listing.jobs.size() > limit) listing.jobs.resize(limit);
  return listing;
}

std::string listing_json(const JobListing& listing) {
  ordered_json jobs = ordered_json::array();
  for (const JobSummary& job : listing.jobs) jobs.push_back(job_json::summary_json(job));
  return json_line({{"jobs", std::move(jobs)}, {"more", listing.more}});
}

std::string listing_table(const JobListing& listing) {
  std::vector<TextRow> rows{{"JOB", "STATE", "MODEL", "TENANT", "GROUP", "ATTEMPTS", "PROGRESS", "ACCEPTED (UTC)"}};
  for (const JobSummary& job : listing.jobs) {
    rows.push_back({job.job.hex(), std::string(protocol::job_state_name(job.state)), name_or_dash(job.model),
                    name_or_dash(job.tenant), name_or_dash(job.group), std::to_string(job.attempts),
                    progress_text(job.progress_done, job.progress_total), utc_text(job.accepted_wall_ms)});
  }
  return text_table(rows);
}

std::string reasons_table(const JobListing& listing) {
  std::vector<TextRow> rows{{"JOB", "MODEL", "TENANT", "ATTEMPTS", "ACCEPTED (UTC)", "REASON"}};
  for (const JobSummary& job : listing.jobs) {
    rows.push_back({job.job.hex(), name_or_dash(job.model), name_or_dash(job.tenant), std::to_string(job.attempts),
                    utc_text(job.accepted_wall_ms), name_or_dash(job.message)});
  }
  return text_table(rows);
}

std::string attempt_text(const protocol::JobAttempt& one) {
  std::string text =
      std::to_string(one.number) + " on " + one.service + ", from " + duration_text(one.began_ms) + " on";
  if (one.ended_ms < 0) return text + ", goes on";
  text += " for " + duration_text(one.ended_ms - one.began_ms);
  return one.loss.empty() ? text : text + ", lost: " + one.loss;
}

std::string job_text(const JobResult& result, const std::optional<JobSummary>& summary) {
  std::string text = fact("job", result.job.hex()) + fact("key", result.key);
  if (summary) text += fact("model", summary->model) + fact("accepted", utc_text(summary->accepted_wall_ms) + " UTC");
  text += fact("tenant", result.tenant) + fact("group", result.group);
  text += fact("state", std::string(protocol::job_state_name(result.state)));
  if (result.state == protocol::JobState::kQueued) text += fact("waiting", place_text(result.position, result.eta_ms));
  if (result.finish_reason != sampling::FinishReason::kNone) {
    text += fact("finish reason", std::string(protocol::finish_reason_name(result.finish_reason)));
  }
  if (result.error) text += fact("error", std::string(error_code_name(*result.error)) + ": " + result.message);
  if (!result.error) text += fact("message", result.message);
  text += fact("attempts", std::to_string(result.attempts));
  for (const protocol::JobAttempt& one : result.tries) text += fact("attempt", attempt_text(one));
  // Of those before the scheduler's last start, only the reason is known.
  const auto told =
      static_cast<size_t>(std::ranges::count_if(result.tries, [](const auto& one) { return !one.loss.empty(); }));
  for (size_t i = 0; i + told < result.losses.size(); ++i) text += fact("lost", result.losses[i]);
  text += fact("progress", progress_text(result.progress_done, result.progress_total));
  text += fact("tokens",
               std::to_string(result.prompt_tokens) + " prompt, " + std::to_string(result.ids.size()) + " output");
  text += fact("times", timings_text(result.timings));
  return text + fact("prompt", result.prompt) + fact("trace", result.traceparent);
}

std::string job_json(const JobResult& result, const std::optional<JobSummary>& summary) {
  return json_line(job_json::job_json(result, summary));
}

std::string group_text(const std::string& name, const protocol::GroupStatus& group) {
  return "group " + name + ": " + std::to_string(group.open) + " open, " + std::to_string(group.succeeded) +
         " succeeded, " + std::to_string(group.failed) + " failed, " + std::to_string(group.cancelled) +
         " cancelled, " + std::to_string(group.expired) + " expired, " + std::to_string(group.dead) + " dead\n";
}

std::string group_json(const std::string& tenant, const std::string& name, const protocol::GroupStatus& group) {
  return json_line(job_json::group_json(tenant, name, group));
}

}  // namespace optserve::cli
