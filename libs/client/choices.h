// Several choices for one prompt (n and best_of): jobs of one group that differ in their seeds, each durable, retried
// and placed on its own. What their prompts share is computed once where they meet on one worker group.
#pragma once

#include <vector>

#include "base/error.h"
#include "protocol/client_messages.h"

namespace optserve {

inline constexpr int kChoicesMax = 64;

// The jobs of `best_of` choices: seeds job.seed, job.seed + 1, ...; job.group or a random group; job.key, where it is
// set, with ".1", ".2", ... behind it. Where more are made than the `n` that are wanted, all report log-probabilities.
// Refuses n and best_of outside 1 <= n <= best_of <= kChoicesMax, and several choices of what draws nothing: a
// temperature of 0, a beam search, no output.
Result<std::vector<protocol::JobSpec>> choice_jobs(const protocol::JobSpec& job, int n, int best_of);

// Sum of the log-probabilities of a result's ids.
double cumulative_logprob(const protocol::JobResult& result);

// The `n` with the largest cumulative_logprob() if there are more than n, best first, those that did not succeed last;
// else all in their order.
std::vector<protocol::JobResult> best_choices(std::vector<protocol::JobResult> results, int n);

}  // namespace optserve
