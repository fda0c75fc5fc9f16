// What operators ask about jobs, as text for people and as JSON for programs.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/client.h"

namespace optserve::cli {

// "queued", "dead", ... as protocol::job_state_name() gives them.
std::optional<protocol::JobState> parse_job_state(std::string_view name);

// Jobs of all schedulers, earliest first.
struct JobListing {
  std::vector<protocol::JobSummary> jobs;
  bool more = false;                              // than were asked for
  client::Answers<protocol::JobList> unanswered;  // the refusals
};

// At most `limit` of the jobs that match.
JobListing list_jobs(client::Client& client, const protocol::JobFilter& filter, size_t limit);

// One line: {"jobs": [...], "more": false}.
std::string listing_json(const JobListing& listing);
std::string listing_table(const JobListing& listing);
// A table with the reason of each, for dead jobs.
std::string reasons_table(const JobListing& listing);

// Everything that is known of a job, one fact a line.
std::string job_text(const protocol::JobResult& result, const std::optional<protocol::JobSummary>& summary);
// The object of result_json() with the facts of the summary.
std::string job_json(const protocol::JobResult& result, const std::optional<protocol::JobSummary>& summary);

std::string group_text(const std::string& name, const protocol::GroupStatus& group);
std::string group_json(const std::string& tenant, const std::string& name, const protocol::GroupStatus& group);

}  // namespace optserve::cli
