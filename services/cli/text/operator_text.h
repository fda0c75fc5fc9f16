// Lists of jobs and all that is known about one, as text for people and as JSON for programs.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "client/client.h"

namespace optserve::cli {

inline constexpr std::array kJobStates = {protocol::JobState::kQueued,    protocol::JobState::kRunning,
                                          protocol::JobState::kSucceeded, protocol::JobState::kFailed,
                                          protocol::JobState::kCancelled, protocol::JobState::kExpired,
                                          protocol::JobState::kDead};
// The state with this protocol::job_state_name().
std::optional<protocol::JobState> parse_job_state(std::string_view name);

// Jobs of all schedulers in the order in which they were accepted.
struct JobListing {
  std::vector<protocol::JobSummary> jobs;
  bool more = false;                              // there are more jobs than were asked for
  client::Answers<protocol::JobList> unanswered;  // the refusals
};

// At most `limit` of the jobs that match the filter.
JobListing list_jobs(client::Client& client, const protocol::JobFilter& filter, size_t limit,
                     client::ListOrder order = client::ListOrder::kOldestFirst);

// One line: {"jobs": [...], "more": false}.
std::string listing_json(const JobListing& listing);
std::string listing_table(const JobListing& listing);
// A table with the reason of each, for dead jobs.
std::string reasons_table(const JobListing& listing);

// Everything that is known about a job, one fact on each line.
std::string job_text(const protocol::JobResult& result, const std::optional<protocol::JobSummary>& summary);
// The object of result_json() with the facts of the summary.
std::string job_json(const protocol::JobResult& result, const std::optional<protocol::JobSummary>& summary);

std::string group_text(const std::string& name, const protocol::GroupStatus& group);
std::string group_json(const std::string& tenant, const std::string& name, const protocol::GroupStatus& group);

}  // namespace optserve::cli
