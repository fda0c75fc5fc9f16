#include "job_plan.h"

#include <random>

#include "support/demo_model.h"

namespace optserve::chaos {

protocol::JobSpec variant_spec(size_t variant) {
  const auto& cases = test_support::demo_goldens().cases;
  protocol::JobSpec job;
  job.model = "demo";
  job.prompt = cases[variant % cases.size()].prompt;
  job.sampling.temperature = variant % 3 == 0 ? 0.0f : 0.8f;
  job.sampling.seed = 1000 + variant;
  job.sampling.ignore_eos = true;
  job.max_new_tokens = static_cast<int32_t>(4 + 6 * variant);
  return job;
}

PlannedJob plan_job(uint64_t seed, int client, uint64_t number) {
  std::seed_seq parts{seed, seed >> 32, static_cast<uint64_t>(client), number};
  std::mt19937_64 random(parts);
  const auto one_in = [&random](uint64_t n) { return random() % n == 0; };
  PlannedJob job;
  job.variant = random() % kVariants;
  job.spec = variant_spec(job.variant);
  job.spec.key = "chaos-" + std::to_string(client) + "-" + std::to_string(number);
  job.spec.tenant = one_in(4) ? "tenant-" + std::to_string(random() % 3) : "";
  job.spec.priority = static_cast<int32_t>(random() % 3);
  job.spec.max_attempts = 10;
  if (one_in(12)) job.spec.max_attempts = 2;
  job.is_short_lived = one_in(20);
  if (job.is_short_lived) job.spec.ttl_ms = 2'000;
  if (one_in(10)) job.cancel_after_ms = static_cast<int64_t>(random() % 400);
  job.submit_again = one_in(10);
  job.conflict = one_in(20);
  return job;
}

}  // namespace optserve::chaos
