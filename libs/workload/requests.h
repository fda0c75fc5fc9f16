// The requests of a benchmark. They depend only on its specification, so every build, the engine and the pipeline get
// the same ones.
#pragma once

#include <vector>

#include "base/ids.h"
#include "workload/bench_spec.h"

namespace optserve::workload {

struct BenchRequest {
  std::vector<TokenId> prompt;  // a leading </s>, then random ids
  int32_t new_tokens = 0;
  sampling::SamplingParams sampling;
};

// The limits of the model.
struct ModelBounds {
  int32_t context = 0;  // prompt and new tokens together
  int32_t vocab = 0;    // ids are below this
};

// The requests of one run of a batch. Each run has different prompts, so that no run gains from what an earlier one has
// cached.
std::vector<BenchRequest> make_batch(const BenchSpec& spec, int32_t batch, int32_t run, const ModelBounds& bounds);

// The requests of one run of a throughput benchmark. Each run has different prompts of the same lengths. Mixed lengths
// are log-normal with the means of the specification and sigma 1 (of the logarithm), which resembles ShareGPT's
// conversations. A prompt takes at most half of the context, and the output at most the rest.
std::vector<BenchRequest> make_requests(const BenchSpec& spec, int32_t run, const ModelBounds& bounds);

}  // namespace optserve::workload
