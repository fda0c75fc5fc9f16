// Several choices for one prompt (n and best_of). They are jobs of one group that differ in their seeds; each is
// durable, retried and scheduled on its own. Where they run on the same worker group, the KV cache of their prompt is
// computed once.
#pragma once

#include <vector>

#include "base/error.h"
#include "protocol/message_types.h"

namespace optserve::client {

inline constexpr int kChoicesMax = 64;

// The jobs for `best_of` choices. Their seeds are job.seed, job.seed + 1 and so on, their group is job.group or a
// random one, their keys are job.key, if it is set, followed by ".1", ".2" and so on. If best_of > n, all report
// log-probabilities. Refuses n and best_of outside of 1 <= n <= best_of <= kChoicesMax, and several choices that would
// all be the same because of a temperature of 0, a beam search or no output tokens.
Result<std::vector<protocol::JobSpec>> choice_jobs(const protocol::JobSpec& job, int n, int best_of);

// The sum of the log-probabilities of a result's ids.
double cumulative_logprob(const protocol::JobResult& result);

// If there are more than `n` results: the n with the largest cumulative_logprob(), best first; those that did not
// succeed rank last. Otherwise all results in their order.
std::vector<protocol::JobResult> best_choices(std::vector<protocol::JobResult> results, int n);

}  // namespace optserve::client
