// The host's version of the device header of the kernels: the threads of a thread block run as fibers, one after
// another, and give way to the next at every barrier.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <stdexcept>

#include "../../src/cuda/grid.h"
#include "../../src/cuda/words.cuh"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

namespace elsa::cuda {

struct Index {
  unsigned x, y, z;
};

namespace emulation {

// The order of the threads of a thread block, and of the thread blocks of a grid. Results must not depend on it.
enum class Order { ascending, descending, random };
extern Order order;

// Whether ops run in all of them; elsa_emulated::every_order sets it.
extern bool every_order;
extern std::mutex one_op_at_a_time;

extern Index thread_index, block_index, grid_size;

// A launch of a kernel, as C and Python see it.
struct Launch {
  const void* kernel;
  Grid grid;
  const void* arguments;
  size_t argument_bytes;
};

// Run `thread` once for every thread of every thread block; or let elsa_emulated_launch_by's function do the launch.
void run(const Launch& launch, const std::function<void()>& thread);

unsigned char* shared_memory();

// Wait for all threads of the thread block, or of the warp, that have not ended.
void wait_for_block();
void wait_for_warp();

// Hand a message to the other lanes of the warp, and get those of all lanes. All lanes must call.
using Message = std::array<uint64_t, 6>;
std::array<const Message*, 32> exchange(const Message& message);

}  // namespace emulation

#define threadIdx (::elsa::cuda::emulation::thread_index)
#define blockIdx (::elsa::cuda::emulation::block_index)
#define gridDim (::elsa::cuda::emulation::grid_size)

inline int reread_thread_index() { return int(threadIdx.x); }

inline void __syncthreads() { emulation::wait_for_block(); }
inline void __syncwarp() { emulation::wait_for_warp(); }
inline double __shfl_xor_sync(unsigned, double number, int mask) {
  const auto messages = emulation::exchange({std::bit_cast<uint64_t>(number)});
  return std::bit_cast<double>((*messages[threadIdx.x % 32 ^ mask])[0]);
}
inline float __shfl_xor_sync(unsigned all, float number, int mask) {
  return float(__shfl_xor_sync(all, double(number), mask));
}
inline float fast_exp2(float number) { return std::exp2(number); }

template <typename Number>
Number __shfl_sync(unsigned, Number number, int lane) {
  const auto messages = emulation::exchange({std::bit_cast<uint64_t>(double(number))});
  return Number(std::bit_cast<double>((*messages[lane])[0]));
}

inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t bytes = uint64_t(high) << 32 | low;
  uint32_t chosen = 0;
  for (int byte = 0; byte < 4; ++byte) chosen |= uint32_t(bytes >> 8 * (selector >> 4 * byte & 7) & 0xff) << 8 * byte;
  return chosen;
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
void unpack(uint32_t word, float& lower, float& upper) {
  const auto numbers = std::bit_cast<std::array<T, 2>>(word);
  lower = widened(numbers[0]), upper = widened(numbers[1]);
}

template <typename T>
void unpack(const Words<T>& words, float (&to)[lane_channels]) {
  const auto numbers = std::bit_cast<std::array<T, lane_channels>>(words);
  for (int c = 0; c < lane_channels; ++c) to[c] = widened(numbers[c]);
}

// src/cuda/platform/device.cuh has the table of which lane has what.
template <typename T>
void add_product(const uint32_t (&left)[4], const uint32_t (&right)[2], float (&sum)[4]) {
  const auto messages = emulation::exchange({left[0], left[1], left[2], left[3], right[0], right[1]});
  const auto half = [](uint64_t word, int number) {
    float numbers[2];
    unpack<T>(uint32_t(word), numbers[0], numbers[1]);
    return numbers[number];
  };
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int s = 0; s < 4; ++s) {
    const int row = g + s / 2 * 8, column = 2 * t + s % 2;
    for (int k = 0; k < 16; ++k) {
      // Among the lanes that have the row of `left`, and among those that have the column of `right`, the one with k.
      const int holder = k % 8 / 2;
      const uint64_t a = (*messages[row % 8 * 4 + holder])[row / 8 + k / 8 * 2];
      const uint64_t b = (*messages[column * 4 + holder])[4 + k / 8];
      sum[s] += half(a, k % 2) * half(b, k % 2);
    }
  }
}

// The addresses in shared memory that the lanes of the warp give.
template <typename T>
std::array<const T*, 32> matrix_rows(const T* row) {
  if (std::bit_cast<uintptr_t>(row) % 16 != 0) throw std::runtime_error("emulation: a row at no multiple of 16 bytes");
  const auto messages = emulation::exchange({std::bit_cast<uintptr_t>(row)});
  std::array<const T*, 32> rows;
  for (int lane = 0; lane < 32; ++lane) rows[lane] = std::bit_cast<const T*>((*messages[lane])[0]);
  return rows;
}

template <typename T>
void load_left(const T* row, uint32_t (&left)[4]) {
  const auto rows = matrix_rows(row);
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int m = 0; m < 4; ++m) std::memcpy(&left[m], rows[8 * m + g] + 2 * t, sizeof left[m]);
}

template <typename T>
void load_transposed(const T* row, uint32_t (&matrices)[4]) {
  const auto rows = matrix_rows(row);
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int m = 0; m < 4; ++m) {
    const std::array<T, 2> column{rows[8 * m + 2 * t][g], rows[8 * m + 2 * t + 1][g]};
    matrices[m] = std::bit_cast<uint32_t>(column);
  }
}

template <typename T>
T* shared_memory() {
  return reinterpret_cast<T*>(emulation::shared_memory());
}

inline int multiprocessors() { return 1; }

template <typename Arguments>
void launch(void (*kernel)(Arguments), const Grid& grid, void*, const Arguments& arguments) {
  emulation::run({reinterpret_cast<const void*>(kernel), grid, &arguments, sizeof arguments},
                 [&] { kernel(arguments); });
}

}  // namespace elsa::cuda
