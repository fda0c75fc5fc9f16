#include "client/choices.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "base/ids.h"

namespace optserve::client {

using protocol::JobResult;
using protocol::JobSpec;

Result<std::vector<JobSpec>> choice_jobs(const JobSpec& job, int n, int best_of) {
  if (n < 1 || best_of < n || best_of > kChoicesMax) {
    return refuse(ErrorCode::kBadRequest, "n is " + std::to_string(n) + " and best_of " + std::to_string(best_of) +
                                              ", expected 1 <= n <= best_of <= " + std::to_string(kChoicesMax));
  }
  if (best_of == 1) return std::vector<JobSpec>{job};
  if (job.sampling.temperature == 0 || job.sampling.is_beam_search() || job.max_new_tokens == 0) {
    return refuse(ErrorCode::kBadRequest, "best_of is " + std::to_string(best_of) +
                                              ": several choices need a temperature above 0, output tokens and no beam "
                                              "search; otherwise all are the same");
  }
  std::vector<JobSpec> jobs;
  const std::string group = job.group.empty() ? Id128::random().hex() : job.group;
  for (int i = 0; i < best_of; ++i) {
    JobSpec& choice = jobs.emplace_back(job);
    choice.group = group;
    choice.sampling.seed = job.sampling.seed + static_cast<uint64_t>(i);
    if (!job.key.empty()) choice.key = job.key + "." + std::to_string(i + 1);
    if (best_of > n) choice.sampling.logprobs = std::max(choice.sampling.logprobs, 0);
  }
  return jobs;
}

double cumulative_logprob(const JobResult& result) {
  return std::accumulate(result.logprobs.begin(), result.logprobs.end(), 0.0);
}

std::vector<JobResult> best_choices(std::vector<JobResult> results, int n) {
  if (results.size() <= static_cast<size_t>(n)) return results;
  const auto failed = [](const JobResult& result) { return result.state != protocol::JobState::kSucceeded; };
  std::ranges::stable_sort(results, [&](const JobResult& a, const JobResult& b) {
    if (failed(a) != failed(b)) return failed(b);
    return cumulative_logprob(a) > cumulative_logprob(b);
  });
  results.resize(static_cast<size_t>(n));
  return results;
}

}  // namespace optserve::client
