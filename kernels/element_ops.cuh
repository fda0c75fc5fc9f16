// Element types on the device: conversion to and from fp32, and several elements through 16-byte accesses.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "kernels/element.h"

namespace optserve::kernels {

// Elements of one 16-byte access.
template <class T>
inline constexpr int kPack = 16 / static_cast<int>(sizeof(T));

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

// Rounds to nearest even, subnormals included.
template <class T>
__device__ __forceinline__ T from_float(float value) {
  if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(value);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(value);
  } else {
    return value;
  }
}

// What storing `value` as a T and loading it again gives.
template <class T>
__device__ __forceinline__ float rounded(float value) {
  return to_float(from_float<T>(value));
}

// The kPack<T> elements of 16 bytes.
template <class T>
__device__ __forceinline__ void unpack(const uint4& raw, float* values) {
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (std::is_same_v<T, float>) {
      values[i] = __uint_as_float(words[i]);
    } else if constexpr (std::is_same_v<T, __half>) {
      const float2 pair = __half22float2(reinterpret_cast<const __half2&>(words[i]));
      values[2 * i] = pair.x;
      values[2 * i + 1] = pair.y;
    } else {
      values[2 * i] = __uint_as_float(words[i] << 16);
      values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
    }
  }
}

// Eight int8 numbers as exact floats: the byte plus 128 is put into the lowest mantissa bits of 2^23, and then both
// offsets are subtracted.
__device__ __forceinline__ void unpack_int8(const uint2& raw, float (&values)[8]) {
  const uint32_t words[2] = {raw.x ^ 0x80808080u, raw.y ^ 0x80808080u};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    values[i] = __uint_as_float(__byte_perm(words[i / 4], 0x4b000000u, 0x7540u + i % 4)) - 0x1.0001p23f;
  }
}

template <class T>
__device__ __forceinline__ uint4 pack(const float* values) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (std::is_same_v<T, float>) {
      words[i] = __float_as_uint(values[i]);
    } else if constexpr (std::is_same_v<T, __half>) {
      const __half2 pair = __floats2half2_rn(values[2 * i], values[2 * i + 1]);
      words[i] = reinterpret_cast<const uint32_t&>(pair);
    } else {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(values[2 * i], values[2 * i + 1]);
      words[i] = reinterpret_cast<const uint32_t&>(pair);
    }
  }
  return {words[0], words[1], words[2], words[3]};
}

// Loads kItems elements: either one element of any alignment, or whole packs at a multiple of 16 bytes.
template <int kItems, class T>
__device__ __forceinline__ void load_items(const T* from, float (&values)[kItems]) {
  if constexpr (kItems == 1) {
    values[0] = to_float(*from);
  } else {
    static_assert(kItems % kPack<T> == 0);
#pragma unroll
    for (int i = 0; i < kItems; i += kPack<T>) unpack<T>(*reinterpret_cast<const uint4*>(from + i), values + i);
  }
}

template <int kItems, class T>
__device__ __forceinline__ void store_items(T* to, const float (&values)[kItems]) {
  if constexpr (kItems == 1) {
    *to = from_float<T>(values[0]);
  } else {
    static_assert(kItems % kPack<T> == 0);
#pragma unroll
    for (int i = 0; i < kItems; i += kPack<T>) *reinterpret_cast<uint4*>(to + i) = pack<T>(values + i);
  }
}

// Null counts as aligned, since it is not accessed.
inline bool aligned_to_packs(std::initializer_list<const void*> pointers) {
  uintptr_t bits = 0;
  for (const void* pointer : pointers) bits |= reinterpret_cast<uintptr_t>(pointer);
  return bits % 16 == 0;
}

// Calls launch(T()) with the type that `element` names.
template <class Launch>
cudaError_t with_element(Element element, const Launch& launch) {
  switch (element) {
    case Element::kF32:
      return launch(float());
    case Element::kF16:
      return launch(__half());
    case Element::kBF16:
      return launch(__nv_bfloat16());
  }
  return cudaErrorInvalidValue;
}

}  // namespace optserve::kernels
