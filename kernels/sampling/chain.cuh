// The arithmetic of the sampling chain for one logit, operation for operation that of libs/sampling and base/simd.h in
// their AVX2 and FMA form, so that weights have the same bits. This file must not be compiled with --use_fast_math.
#pragma once

#include <cfloat>
#include <cmath>

#include "kernels/sampling.h"

namespace optserve::kernels::sampling {

// Philox4x32-10 and the uniform number in (0, 1] of sampling/random.h.
__device__ inline double uniform_at(uint64_t seed, uint64_t position) {
  uint32_t counter[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0};
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter[0] = static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0];
    counter[1] = static_cast<uint32_t>(b);
    counter[2] = static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1];
    counter[3] = static_cast<uint32_t>(a);
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  const uint64_t bits = (uint64_t{counter[1]} << 32 | counter[0]) >> 11;
  return static_cast<double>(bits + 1) * 0x1p-53;
}

__device__ inline bool has_rules(const SamplingRow& row) { return (row.flags & SamplingRow::kHasRules) != 0; }
__device__ inline bool allows_end(const SamplingRow& row) { return (row.flags & SamplingRow::kAllowEnd) != 0; }
__device__ inline bool ranks_allowed(const SamplingRow& row) { return (row.flags & SamplingRow::kBestAllowed) != 0; }
__device__ inline bool is_greedy(const SamplingRow& row) { return row.temperature == 0.0f || row.top_k == 1; }

// The penalties of a row, in the form that its profile uses.
struct Penalties {
  float repetition, presence, frequency, prompt_presence, prompt_frequency;
  bool presence_of_prompt;
};
__device__ inline Penalties penalties_of(const SamplingRow& row) {
  if (row.profile == SamplingProfile::kMetaseq) {
    return {1.0f,
            fmaxf(row.presence_penalty, 0.0f),
            fmaxf(row.frequency_penalty, 0.0f),
            fmaxf(row.prompt_presence_penalty, 0.0f),
            fmaxf(row.prompt_frequency_penalty, 0.0f),
            false};
  }
  return {row.repetition_penalty,       row.presence_penalty,
          row.frequency_penalty,        row.prompt_presence_penalty,
          row.prompt_frequency_penalty, row.profile == SamplingProfile::kFasterTransformer};
}
__device__ inline bool has_penalties(const SamplingRow& row) {
  const Penalties penalties = penalties_of(row);
  return penalties.repetition != 1.0f || penalties.presence != 0.0f || penalties.frequency != 0.0f ||
         penalties.prompt_presence != 0.0f || penalties.prompt_frequency != 0.0f;
}

// How often an id occurs in the prompt and in the generated tokens: two 16-bit counts.
constexpr uint32_t kInPrompt = 1, kGenerated = 1 << 16;

__device__ inline float hold_finite(float logit) { return fminf(fmaxf(logit, -FLT_MAX), FLT_MAX); }

__device__ inline float penalise(float logit, uint32_t uses, const Penalties& penalties) {
  if (uses == 0) return logit;
  if (penalties.repetition != 1.0f) {
    logit = hold_finite(logit > 0 ? __fdiv_rn(logit, penalties.repetition) : __fmul_rn(logit, penalties.repetition));
  }
  const uint32_t generated = uses / kGenerated, in_prompt = uses % kGenerated;
  if (penalties.presence_of_prompt) logit = __fsub_rn(logit, penalties.presence);
  if (generated > 0) {
    const float by_count = __fmul_rn(static_cast<float>(generated), penalties.frequency);
    logit = __fsub_rn(logit, penalties.presence_of_prompt ? by_count : __fadd_rn(penalties.presence, by_count));
  }
  if (in_prompt > 0) {
    const float by_count = __fmul_rn(static_cast<float>(in_prompt), penalties.prompt_frequency);
    logit = __fsub_rn(logit, __fadd_rn(penalties.prompt_presence, by_count));
  }
  return logit;
}

// The divisor of logits before the penalties; 0 if there is none.
__device__ inline float first_divisor(const SamplingRow& row) {
  constexpr float kLeast = 1e-6f;
  if (row.profile == SamplingProfile::kDefault || row.temperature == 0.0f || row.temperature == 1.0f) {
    return 0.0f;
  }
  return row.profile == SamplingProfile::kFasterTransformer ? __fadd_rn(row.temperature, kLeast)
                                                            : fmaxf(row.temperature, kLeast);
}

// Whether the chain works on an edited copy of the row's logits.
__device__ inline bool is_edited(const SamplingRow& row) {
  return has_rules(row) || has_penalties(row) || first_divisor(row) != 0.0f;
}

// A temperature too small to invert acts as the smallest one that can be inverted.
__device__ inline float scale_of(float temperature) { return fminf(__fdiv_rn(1.0f, temperature), FLT_MAX); }

// simd::exp for x <= 0.
__device__ inline float exponential(float x) {
  constexpr float kLowest = -87.3f, kRound = 12582912.0f;
  const float clamped = fmaxf(x, kLowest);
  const float shifted = fmaf(clamped, 1.44269504088896341f, kRound);
  const float n = __fsub_rn(shifted, kRound);
  float r = fmaf(n, -0.693359375f, clamped);
  r = fmaf(n, 2.12194440e-4f, r);
  float p = fmaf(r, 1.9875691500e-4f, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = __fadd_rn(fmaf(p, __fmul_rn(r, r), r), 1.0f);
  const int exponent = (__float_as_int(shifted) - __float_as_int(kRound) + 127) << 23;
  return x < kLowest ? 0.0f : __fmul_rn(p, __int_as_float(exponent));
}

// Masses are weights in fixed point, so that sums do not depend on the order of their terms. The unit is 2^-mass_bits,
// as small as possible without sums above 2^62: for 2^16 ids it is 2^-46. A weight is then wrong by at most 2^-47 of
// the largest weight, and exact if it is above 2^-23.
__host__ __device__ inline int mass_bits(int64_t vocab_real) {
  int id_bits = 0;
  while ((int64_t{1} << id_bits) < vocab_real) ++id_bits;
  return 62 - id_bits;
}

// An integer target for a product that is rounded as in the reference: a running sum of masses reaches the product if
// and only if it reaches the target.
__device__ inline uint64_t target_mass(double share, uint64_t total) {
  const uint64_t target = __double2ull_ru(__dmul_rn(share, __ull2double_rn(total)));
  return target < 1 ? 1 : target > total ? total : target;
}

// Keys are unsigned numbers in the order of the finite floats; -0 has the same key as 0.
__device__ inline uint32_t key_of(float logit) {
  const uint32_t bits = logit == 0.0f ? 0u : __float_as_uint(logit);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ inline float logit_of(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

}  // namespace optserve::kernels::sampling
