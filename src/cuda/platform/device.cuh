// What the kernels use of the machine beside plain CUDA C++. A build of the kernels for the host, which is how they are
// tested where there is no GPU, brings its own version of this header.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "../grid.h"
#include "../words.cuh"

namespace elsa::cuda {

using bfloat16 = __nv_bfloat16;
using float16 = __half;

__device__ inline float widened(float number) { return number; }
__device__ inline float widened(bfloat16 number) { return __bfloat162float(number); }
__device__ inline float widened(float16 number) { return __half2float(number); }
__device__ inline double widened(double number) { return number; }

// The type that T is accumulated in.
template <typename T>
using Accumulator = decltype(widened(T()));

template <typename T>
__device__ T rounded(Accumulator<T> number) {
  return number;
}
template <>
__device__ inline bfloat16 rounded<bfloat16>(float number) {
  return __float2bfloat16_rn(number);
}
template <>
__device__ inline float16 rounded<float16>(float number) {
  return __float2half_rn(number);
}

// bfloat16 is the upper half of float32.
template <typename T>
__device__ void unpack(uint32_t word, float& lower, float& upper) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    lower = __uint_as_float(word << 16), upper = __uint_as_float(word & 0xffff0000);
  } else {
    const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&word));
    lower = pair.x, upper = pair.y;
  }
}

template <typename T>
__device__ void unpack(const Words<T>& words, float (&to)[lane_channels]) {
  if constexpr (std::is_same_v<T, float>) {
    for (int c = 0; c < lane_channels; ++c) to[c] = __uint_as_float(words.data[c]);
  } else {
    for (int c = 0; c < lane_channels; c += 2) unpack<T>(words.data[c / 2], to[c], to[c + 1]);
  }
}

// Add the product of a 16 × 16 matrix and a 16 × 8 matrix to a 16 × 8 matrix of sums, all three spread over the lanes
// of a warp, all of which must call. It is the mma.m16n8k16 of the PTX manual. A word holds two numbers, the first in
// its lower half. With g = lane / 4 and t = lane % 4, a lane has these elements:
//
// clang-format off
//            row    column                        row               column             row    column
//   left[0]  g      2t, 2t + 1         right[0]   2t, 2t + 1        g       sum[0]     g      2t
//   left[1]  g + 8  2t, 2t + 1         right[1]   2t + 8, 2t + 9    g       sum[1]     g      2t + 1
//   left[2]  g      2t + 8, 2t + 9                                          sum[2]     g + 8  2t
//   left[3]  g + 8  2t + 8, 2t + 9                                          sum[3]     g + 8  2t + 1
// clang-format on
template <typename T>
__device__ void add_product(const uint32_t (&left)[4], const uint32_t (&right)[2], float (&sum)[4]) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
  }
}

// Load the left operand of add_product from shared memory. Lane l gives the address of 8 numbers of row l % 16: of the
// first eight if l < 16, else of the last. The address is a multiple of 16 bytes. All lanes must call.
template <typename T>
__device__ void load_left(const T* row, uint32_t (&left)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(left[0]), "=r"(left[1]), "=r"(left[2]), "=r"(left[3])
               : "r"(unsigned(__cvta_generic_to_shared(row)))
               : "memory");
}

// Load four 8 × 8 matrices from shared memory, transposed. Lane 8·m + r gives the address of row r of matrix m, a
// multiple of 16 bytes. With g = lane / 4 and t = lane % 4, a lane gets from each matrix the elements of column g in
// the rows 2t and 2t + 1. All lanes must call.
template <typename T>
__device__ void load_transposed(const T* row, uint32_t (&matrices)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(unsigned(__cvta_generic_to_shared(row)))
               : "memory");
}

// 2 to the power of a number, as exact as exp2f and faster: what is less than 2⁻¹²⁶ becomes 0.
__device__ inline float fast_exp2(float number) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(number));
  return power;
}

// threadIdx.x, read anew by every call. What is computed from it stays in no register until the next call, since the
// compiler does not know that that gives the same: code outside of the inner loops takes no registers from them.
__device__ inline int reread_thread_index() {
  int thread;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
  return thread;
}

// The thread block's dynamic shared memory.
template <typename T>
__device__ T* shared_memory() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return reinterpret_cast<T*>(bytes);
}

inline void check(cudaError_t status) {
  if (status != cudaSuccess) {
    cudaGetLastError();  // forgets it: the next launch, a good one, would be reported as failed
    throw std::runtime_error(std::string("CUDA failed: ") + cudaGetErrorString(status));
  }
}

inline int multiprocessors() {
  int device = 0, count = 0;
  check(cudaGetDevice(&device));
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

template <typename Arguments>
void launch(void (*kernel)(Arguments), const Grid& grid, void* stream, const Arguments& arguments) {
  // The CUDA C++ Programming Guide: a kernel that wants more dynamic shared memory than 48 KiB has to ask for it.
  constexpr size_t without_asking = 48 << 10;
  if (grid.shared_bytes > without_asking) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(grid.shared_bytes)));
  }
  const dim3 blocks(unsigned(grid.x), unsigned(grid.y), unsigned(grid.z));
  kernel<<<blocks, grid.threads, grid.shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments);
  check(cudaGetLastError());
}

}  // namespace elsa::cuda
