// Run-time properties of a call as template arguments of its kernel, and how many thread blocks it gets.
#pragma once

#include <kernel_sizes.h>

#include <algorithm>
#include <device.cuh>
#include <type_traits>

#include "../core/choose.h"
#include "../core/views.h"

namespace elsa::cuda {

template <typename T>
struct Type {
  using type = T;
};

// Call function(Type<T>) for a dtype whose accumulation type is float32.
template <typename Function>
void choose_narrow(DType dtype, const Function& function) {
  switch (dtype) {
    case DType::bfloat16:
      return function(Type<bfloat16>());
    case DType::float16:
      return function(Type<float16>());
    default:
      return function(Type<float>());
  }
}

// Call function(Type<T>) for any dtype.
template <typename Function>
void choose_type(DType dtype, const Function& function) {
  dtype == DType::float64 ? function(Type<double>()) : choose_narrow(dtype, function);
}

template <int... Sizes>
struct KernelSizeList {
  // Call function(std::integral_constant<int, K>) if there are kernels for K = `size`, and tell whether there are.
  template <typename Function>
  static bool choose(int64_t size, const Function& function) {
    return ((size == Sizes && (function(std::integral_constant<int, Sizes>()), true)) || ...);
  }
};
using KernelSizes = KernelSizeList<ELSA_KERNEL_SIZES>;

// Whether the kernels with a compile-time K may take a call: stride 1, sums in float32, and 32 bits for every row,
// every column and the number of pixels.
template <typename Shape>
bool is_plain(const Shape& shape, int64_t dilation, int64_t stride, DType dtype) {
  // A tap lies up to K / 2 dilations outside the map: with 2²⁴ rows and a dilation of 2²⁴ that fits for K < 200.
  constexpr int64_t most_rows = 1 << 24;
  // For 2¹⁸ columns the reciprocal of StripTiling divides exactly.
  constexpr int64_t most_columns = 1 << 18;
  // The tiles of a batch, which are no more than its pixels, are counted in 32 bits, and so is the step from one tile
  // of a thread block to its next beyond the last.
  constexpr int64_t most_pixels = 1 << 30;
  // There are no more slices than channels; the slices go along y of the grid.
  constexpr int64_t most_channels = most_blocks_yz;
  return stride == 1 && dtype != DType::float64 && shape.height <= most_rows && shape.width <= most_columns &&
         dilation <= most_rows && shape.batch <= most_pixels / (shape.height * shape.width) &&
         shape.channels <= most_channels;
}

// Thread blocks for `tiles` tiles of each of `slices` slices of the channels: one for each tile, or as many as fill the
// device. That is 8 for a multiprocessor, two to four times what is resident there: a thread block that ends early
// leaves little idle. The number was not measured.
inline int64_t blocks_for_tiles(int64_t slices, int64_t tiles) {
  constexpr int64_t enough = 8;
  return std::clamp<int64_t>(enough * multiprocessors() / slices, 1, tiles);
}

// The number of partial results of each of `sums` sums over `rows` rows of pixels, of which `wanted` fill the device:
// no more than there are rows, and not so few that one of them is a long sum.
inline int64_t partial_results(int64_t wanted, int64_t sums, int64_t rows) {
  constexpr int64_t fewest = 16;
  return std::clamp<int64_t>(std::max(wanted, fewest) / sums, 1, rows);
}

}  // namespace elsa::cuda
