// Parts of the job queue, measured by themselves.
#pragma once

#include <string>
#include <vector>

#include "bench/bench_loop.h"

namespace optserve::bench {

// The journal: how many accepted jobs a second become durable with at most `batch` records a commit.
Figure measure_commits(const std::string& folder, size_t batch, int seconds);
// The journal: time and memory of a start that finds `jobs` open jobs, each with a prompt of 512 bytes.
std::vector<Figure> measure_recovery(const std::string& folder, size_t jobs);

// The scheduler with `jobs` jobs that wait, each with a prompt of 128 ids: how fast they are accepted, the memory of
// one, how fast it is told how they are, and a start that finds them. Nothing serves their model.
std::vector<Figure> measure_deep_queue(const std::string& folder, size_t jobs);

// The network: what four hops cost, worker -> hub -> tokenizer -> hub -> client, as tokens travel, if the messages hold
// only a number and the hub only passes them on. The scheduler adds the difference between this and the latency that
// queue_bench measures.
std::vector<Figure> measure_relay(const std::string& transport, int seconds);

}  // namespace optserve::bench
