// The requests of a benchmark: a function of its seed alone, the same for every build, engine and pipeline.
#pragma once

#include <vector>

#include "base/ids.h"
#include "workload/bench_spec.h"

namespace optserve::workload {

struct BenchRequest {
  std::vector<TokenId> prompt;  // a leading </s>, then ids at random
  int32_t new_tokens = 0;
  SamplingParams sampling;
};

// What the requests have to respect.
struct ModelBounds {
  int32_t context = 0;  // prompt and new tokens together
  int32_t vocab = 0;    // ids are below
};

// One run of a batch. Runs have different prompts, so that nothing remembered from one helps the next.
std::vector<BenchRequest> make_batch(const BenchSpec& spec, int32_t batch, int32_t run, const ModelBounds& bounds);

// One run of a throughput benchmark: other prompts in each run, but the same lengths. Mixed lengths are log-normal with
// the means of the spec and sigma 1 (of the logarithm), which is about the shape of ShareGPT's conversations; a prompt
// takes at most half of the context, and the output what is left.
std::vector<BenchRequest> make_requests(const BenchSpec& spec, int32_t run, const ModelBounds& bounds);

}  // namespace optserve::workload
