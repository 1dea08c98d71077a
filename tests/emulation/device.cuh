// The host's version of the device header of the kernels: a block's threads run as fibers, one after another, and give
// way to the next at every barrier.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>

#include "../../src/cuda/words.cuh"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

namespace elsa::cuda {

struct Index {
  unsigned x, y, z;
};

struct Grid {
  int64_t x, y, z;
  int threads;
  size_t shared_bytes;
};

namespace emulation {

// Of the threads of a block, and of the blocks of a grid. What a kernel gives must not depend on it.
enum class Order { ascending, descending, random };
extern Order order;

extern Index thread_index, block_index, grid_size;

// Run `thread` once for every thread of every block.
void run(const Grid& grid, const std::function<void()>& thread);

unsigned char* shared_memory();

// Wait for all threads of the block, or of the warp, that have not ended.
void wait_for_block();
void wait_for_warp();

// What the lane `lane ^ mask` of the warp gives.
uint64_t exchange(uint64_t given, int mask);

}  // namespace emulation

#define threadIdx (::elsa::cuda::emulation::thread_index)
#define blockIdx (::elsa::cuda::emulation::block_index)
#define gridDim (::elsa::cuda::emulation::grid_size)

inline int passing_thread() { return int(threadIdx.x); }

inline void __syncthreads() { emulation::wait_for_block(); }
inline void __syncwarp() { emulation::wait_for_warp(); }
inline float __shfl_xor_sync(unsigned, float given, int mask) {
  return std::bit_cast<float>(uint32_t(emulation::exchange(std::bit_cast<uint32_t>(given), mask)));
}
inline double __shfl_xor_sync(unsigned, double given, int mask) {
  return std::bit_cast<double>(emulation::exchange(std::bit_cast<uint64_t>(given), mask));
}

using bfloat16 = torch::headeronly::BFloat16;
using float16 = torch::headeronly::Half;

inline float widened(float number) { return number; }
inline float widened(bfloat16 number) { return number; }
inline float widened(float16 number) { return number; }
inline double widened(double number) { return number; }

template <typename T>
using Accumulator = decltype(widened(T()));

template <typename T>
T rounded(Accumulator<T> number) {
  return T(number);
}

template <typename T>
void unpack(const Words<T>& words, float (&to)[lane_channels]) {
  T numbers[lane_channels];
  std::memcpy(numbers, words.data, sizeof numbers);
  for (int c = 0; c < lane_channels; ++c) to[c] = widened(numbers[c]);
}

template <typename T>
T* shared_memory() {
  return reinterpret_cast<T*>(emulation::shared_memory());
}

inline int multiprocessors() { return 1; }

template <typename Arguments>
void launch(const char*, void (*kernel)(Arguments), const Grid& grid, void*, const Arguments& arguments) {
  emulation::run(grid, [&] { kernel(arguments); });
}

}  // namespace elsa::cuda
