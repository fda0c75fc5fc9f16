// Converts the packed codes of quantised.h exactly to pairs of fp16 or bf16, without conversion instructions: above the
// bits of a code goes the exponent of a number whose unit in the last place is 1, and what that adds is then
// subtracted.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "kernels/quantised.h"

namespace optserve::kernels {

// A lane's 16 bytes of a unit, and a scale, from shared memory.
__device__ __forceinline__ void read_words(uint32_t from, uint32_t (&words)[4]) {
  asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ float read_float(uint32_t from) {
  float value;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(from) : "memory");
  return value;
}

// A lane's part of one step of 16 inputs: inputs 2 t, 2 t + 1 and 2 t + 8, 2 t + 9 of its output.
struct StepPairs {
  uint32_t low, high;
};

template <class T>
struct PairOf;
template <>
struct PairOf<__half> {
  using Type = __half2;
};
template <>
struct PairOf<__nv_bfloat16> {
  using Type = __nv_bfloat162;
};

template <class Pair>
__device__ __forceinline__ uint32_t bits_of_pair(const Pair& pair) {
  return reinterpret_cast<const uint32_t&>(pair);
}

// Two bytes of `word`, chosen by `selector`, as 1024 + u in fp16, where u - 128 is the code.
__device__ __forceinline__ uint32_t int8_pair_half(uint32_t word, uint32_t selector) {
  const uint32_t biased = __byte_perm(word, 0x64646464u, selector);
  const uint32_t bias = 0x64806480u;  // 1152 twice
  return bits_of_pair(__hsub2(reinterpret_cast<const __half2&>(biased), reinterpret_cast<const __half2&>(bias)));
}

// bf16 has 8 significant bits: enough for every code, but too few for 128 + u with u up to 255. So this goes through
// fp32, as 2^23 + u.
__device__ __forceinline__ uint32_t int8_pair_bfloat(uint32_t word, int first) {
  constexpr float kBias = 8388608.0f + 128.0f;
  const float low = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7440u | first)) - kBias;
  const float high = __uint_as_float(__byte_perm(word, 0x4b000000u, 0x7440u | (first + 1))) - kBias;
  return __byte_perm(__float_as_uint(low), __float_as_uint(high), 0x7632u);  // the upper halves, which hold all bits
}

template <class T>
__device__ __forceinline__ StepPairs int8_step(uint32_t word) {
  if constexpr (std::is_same_v<T, __half>) {
    return {int8_pair_half(word, 0x4140u), int8_pair_half(word, 0x4342u)};
  } else {
    return {int8_pair_bfloat(word, 0), int8_pair_bfloat(word, 2)};
  }
}

template <class T>
__device__ __forceinline__ uint32_t fp8_pair(uint32_t codes) {
  const __half2_raw raw = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(codes), __NV_E4M3);
  const __half2 halves(raw);
  if constexpr (std::is_same_v<T, __half>) {
    return bits_of_pair(halves);
  } else {
    const float2 wide = __half22float2(halves);
    return bits_of_pair(__floats2bfloat162_rn(wide.x, wide.y));
  }
}

template <class T>
__device__ __forceinline__ StepPairs fp8_step(uint32_t word) {
  return {fp8_pair<T>(word & 0xffffu), fp8_pair<T>(word >> 16)};
}

// (word & kMask) | kExponent in one instruction.
template <uint32_t kMask, uint32_t kExponent>
__device__ __forceinline__ uint32_t masked(uint32_t word) {
  uint32_t result;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(word), "n"(kMask), "n"(kExponent));
  return result;
}

// The even step of a word of eight nibbles; the odd step is the even step of word >> 8.
template <class T>
__device__ __forceinline__ StepPairs int4_step(uint32_t word) {
  if constexpr (std::is_same_v<T, __half>) {
    const uint32_t low = masked<0x000f000fu, 0x64006400u>(word);   // 1024 + u, where u is the code plus 8
    const uint32_t high = masked<0x00f000f0u, 0x64006400u>(word);  // 1024 + 16 u
    const uint32_t low_bias = 0x64086408u, sixteenth = 0x2c002c00u, high_bias = 0xd480d480u;  // 1032; 1/16; -72
    const auto pair = [](const uint32_t& bits) { return reinterpret_cast<const __half2&>(bits); };
    return {bits_of_pair(__hsub2(pair(low), pair(low_bias))),
            bits_of_pair(__hfma2(pair(high), pair(sixteenth), pair(high_bias)))};
  } else {
    const uint32_t low = masked<0x000f000fu, 0x43004300u>(word);  // 128 + u
    const uint32_t high = masked<0x000f000fu, 0x43004300u>(word >> 4);
    const uint32_t bias = 0x43084308u;  // 136
    const auto pair = [](const uint32_t& bits) { return reinterpret_cast<const __nv_bfloat162&>(bits); };
    return {bits_of_pair(__hsub2(pair(low), pair(bias))), bits_of_pair(__hsub2(pair(high), pair(bias)))};
  }
}

template <WeightFormat kFormat>
inline constexpr int kUnitSteps = static_cast<int>(unit_inputs(kFormat)) / 16;

// Step kStep of a unit; `words` are a lane's 16 bytes of it.
template <class T, WeightFormat kFormat, int kStep>
__device__ __forceinline__ StepPairs step_of(const uint32_t (&words)[4]) {
  if constexpr (kFormat == WeightFormat::kInt8) {
    return int8_step<T>(words[kStep]);
  } else if constexpr (kFormat == WeightFormat::kFp8) {
    return fp8_step<T>(words[kStep]);
  } else {
    return int4_step<T>(words[kStep / 2] >> (kStep % 2 * 8));
  }
}

}  // namespace optserve::kernels
