// Warpgroup multiplications for attention: scores from queries and keys in shared memory, results from weights in
// registers and values in shared memory.
#pragma once

#include "kernels/attention/types.cuh"
#include "kernels/hopper_ptx.cuh"

namespace optserve::kernels {

// Keeps the compiler from moving accesses to registers that the tensor cores read or write across this point.
template <int kCount>
__device__ __forceinline__ void hold(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}

// After this and a barrier, the copy engine and the tensor cores see what threads have written to shared memory.
__device__ __forceinline__ void fence_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Named barriers of a block, which `threads` threads reach: meet() waits for all of them, come_by() arrives without
// waiting.
__device__ __forceinline__ void meet(int name, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}
__device__ __forceinline__ void come_by(int name, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// The descriptor of rows of 64 halves in the 128-byte swizzle, for an operand whose long side runs along the rows:
// eight rows take 1024 bytes, and the next 64 columns are `column_bytes` further on.
__device__ __forceinline__ uint64_t swizzled_columns(uint32_t shared, uint32_t column_bytes) {
  return static_cast<uint64_t>((shared & 0x3ffffu) >> 4) | (static_cast<uint64_t>(column_bytes >> 4) << 16) |
         (uint64_t{64} << 32) | (uint64_t{1} << 62);
}

#define OPTSERVE_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define OPTSERVE_16(d, i) OPTSERVE_4(d, i), OPTSERVE_4(d, i + 4), OPTSERVE_4(d, i + 8), OPTSERVE_4(d, i + 12)
#define OPTSERVE_32(d, i) OPTSERVE_16(d, i), OPTSERVE_16(d, i + 16)

// scores[64, 128] = (accumulate ? scores : 0) + queries[64, 16] keys[128, 16]^T.
template <class T>
__device__ __forceinline__ void multiply_keys(float (&d)[64], uint64_t queries, uint64_t keys, bool accumulate) {
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, p, 1, 1, 0, 0;\n}"
        : OPTSERVE_32(d, 0), OPTSERVE_32(d, 32)
        : "l"(queries), "l"(keys), "r"(static_cast<int>(accumulate)));
  } else {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, p, 1, 1, 0, 0;\n}"
        : OPTSERVE_32(d, 0), OPTSERVE_32(d, 32)
        : "l"(queries), "l"(keys), "r"(static_cast<int>(accumulate)));
  }
}

// out[64, kDim] += weights[64, 16] values[16, kDim], kDim being twice the size of `out`.
template <class T>
__device__ __forceinline__ void add_values(float (&d)[32], const uint32_t (&a)[4], uint64_t values) {
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
        : OPTSERVE_32(d, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(values));
  } else {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
        : OPTSERVE_32(d, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(values));
  }
}

template <class T>
__device__ __forceinline__ void add_values(float (&d)[64], const uint32_t (&a)[4], uint64_t values) {
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
        : OPTSERVE_32(d, 0), OPTSERVE_32(d, 32)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(values));
  } else {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
        : OPTSERVE_32(d, 0), OPTSERVE_32(d, 32)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(values));
  }
}

#undef OPTSERVE_4
#undef OPTSERVE_16
#undef OPTSERVE_32

}  // namespace optserve::kernels
