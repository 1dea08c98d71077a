// What the kernels share that take any call: 64-bit offsets, one thread per result, taps that reach the map.
#pragma once

#include <algorithm>
#include <device.cuh>
#include <stdexcept>
#include <string>

#include "../core/index.h"
#include "../core/views.h"

namespace elsa::cuda {

// Threads of a thread block, and thread blocks on a multiprocessor at least. Without the latter the compiler would
// spill registers to local memory, to have more thread blocks there.
constexpr int any_threads = 256, any_resident_blocks = 1;

// The taps of one axis that read the map: from `first` to before `last`, where tap `first` reads `position`.
struct TapRange {
  int64_t first, last, position;
};

// For tap t the position is start + t · dilation, and has to be in [0, extent).
__device__ inline TapRange taps_inside(int64_t start, int64_t dilation, int64_t taps, int64_t extent) {
  const int64_t first = start >= 0 ? 0 : divide_up(-start, dilation);
  const int64_t last = start >= extent ? 0 : (extent - 1 - start) / dilation + 1;
  return {first, last < taps ? last : taps, start + first * dilation};
}

// A row of pixels of a batch of maps, to be stepped through. Its divisions are of 32 bits: those of 64 bits are
// subroutines, for which the registers around them would have to be saved.
struct RowOfPixels {
  int64_t sample = 0, row;

  __device__ RowOfPixels(int64_t first, int64_t height) : row(0) { advance(first, height); }

  __device__ void advance(int64_t rows, int64_t height) {
    const unsigned samples = unsigned(rows) / unsigned(height);
    sample += samples, row += rows - samples * height;
    if (row >= height) row -= height, ++sample;
  }
};

// One result of a kernel: an element of a map.
struct Element {
  int64_t sample, channel, row, column;
};

// Call function(element, exists) for this thread's results: `lanes` threads for each of `channels` channels of each
// pixel, in an order in which neighbours are neighbours in memory. The results of a row of pixels go along x of the
// grid, the rows along y. All lanes of a warp make the same calls.
template <typename Function>
__device__ void for_results(const MapView& map, int64_t batch, int64_t channels, unsigned lanes,
                            const Function& function) {
  const unsigned index = (blockIdx.x * any_threads + threadIdx.x) / lanes;
  const bool inner_channels = map.channel_stride == 1, exists = index < unsigned(map.width * channels);
  const unsigned run = unsigned(inner_channels ? channels : map.width);
  const unsigned outer = exists ? index / run : 0, inner = exists ? index % run : 0;
  for (RowOfPixels unit(blockIdx.y, map.height); unit.sample < batch; unit.advance(gridDim.y, map.height)) {
    function(Element{unit.sample, inner_channels ? inner : outer, unit.row, inner_channels ? outer : inner}, exists);
  }
}

// The grid for for_results, which counts a row's results and the rows in 32 bits.
inline Grid grid_of_results(const MapView& map, int64_t batch, int64_t channels, int64_t lanes) {
  constexpr int64_t most = INT32_MAX;
  const int64_t row = map.width * channels * lanes;
  if (row > most || map.height > most) {
    throw std::runtime_error("a row of pixels must have at most " + std::to_string(most / lanes) + " numbers, got " +
                             std::to_string(row / lanes));
  }
  return {divide_up(row, any_threads), std::min(batch * map.height, most_blocks_yz), 1, any_threads, 0};
}

// The grid for one thread for each of `elements` elements, along x, of each of `partials` partial results, along y.
inline Grid grid_of_partials(int64_t elements, int64_t partials) {
  return {divide_up(elements, any_threads), partials, 1, any_threads, 0};
}

}  // namespace elsa::cuda
