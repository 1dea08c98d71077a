// What the kernels share that take any call: 64-bit indices, one thread per result, taps that reach the map.
#pragma once

#include <device.cuh>

#include "elsa/ghost_head.h"

namespace elsa::cuda {

constexpr int any_threads = 256;

template <typename T>
__device__ T* at(const MapView& map, int64_t sample, int64_t channel, int64_t row, int64_t column) {
  return static_cast<T*>(map.data) + sample * map.batch_stride + channel * map.channel_stride + row * map.row_stride +
         column * map.column_stride;
}

// The taps of one axis that read the map: from `first` on, the `count` of them, where tap `first` reads `position`.
struct TapRange {
  int64_t first, last, position;
};

// For tap t the position is start + t · dilation, and has to be in [0, extent).
__device__ inline TapRange taps_inside(int64_t start, int64_t dilation, int64_t taps, int64_t extent) {
  const int64_t first = start >= 0 ? 0 : (-start + dilation - 1) / dilation;
  const int64_t last = start >= extent ? 0 : (extent - 1 - start) / dilation + 1;
  return {first, last < taps ? last : taps, start + first * dilation};
}

// Pixel and channel of the `index`-th element of a map, in an order in which neighbours are neighbours in memory.
struct Element {
  int64_t sample, channel, row, column;
};

__device__ inline Element element_at(const MapView& map, int64_t channels, int64_t index) {
  if (map.channel_stride == 1) {
    const int64_t pixel = index / channels;
    return {pixel / map.width / map.height, index % channels, pixel / map.width % map.height, pixel % map.width};
  }
  const int64_t row = index / map.width;
  return {row / map.height / channels, row / map.height % channels, row % map.height, index % map.width};
}

// The first result of a thread, and how far apart its results are.
__device__ inline int64_t first_result() { return int64_t(blockIdx.x) * any_threads + threadIdx.x; }
__device__ inline int64_t result_step() { return int64_t(gridDim.x) * any_threads; }

}  // namespace elsa::cuda
