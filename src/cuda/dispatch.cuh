// Run-time properties of a call as template arguments of its kernel.
#pragma once

#include <kernel_sizes.h>

#include <algorithm>
#include <device.cuh>
#include <type_traits>

#include "../core/views.h"

namespace elsa::cuda {

// Call f(std::true_type) or f(std::false_type).
template <typename Function>
void choose(bool flag, const Function& function) {
  flag ? function(std::true_type()) : function(std::false_type());
}

template <typename T>
struct Type {
  using type = T;
};

// Call f(Type<T>) for a dtype whose accumulation type is float32.
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

// Call f(Type<T>) for any dtype.
template <typename Function>
void choose_type(DType dtype, const Function& function) {
  dtype == DType::float64 ? function(Type<double>()) : choose_narrow(dtype, function);
}

template <int... Sizes>
struct KernelSizeList {
  // Call f(std::integral_constant<int, K>) if there are kernels for K = `size`, and tell whether there are.
  template <typename Function>
  static bool choose(int64_t size, const Function& function) {
    return ((size == Sizes && (function(std::integral_constant<int, Sizes>()), true)) || ...);
  }
};
using KernelSizes = KernelSizeList<ELSA_KERNEL_SIZES>;

// Whether the kernels with a compile-time K may take a call: stride 1, sums in float32, 32 bits for every row and
// column, also outside the map, and for the number of pixels, few enough channels for the rows of a grid, and few
// enough columns for Tiling's reciprocal.
template <typename Shape>
bool is_plain(const Shape& shape, int64_t stride, DType dtype) {
  constexpr int64_t most_rows = 1 << 24, most_columns = 1 << 18, most_pixels = 1 << 30, most_grid_rows = 65535;
  return stride == 1 && dtype != DType::float64 && shape.height <= most_rows && shape.width <= most_columns &&
         shape.neighbourhood.dilation <= most_rows && shape.batch <= most_pixels / (shape.height * shape.width) &&
         shape.channels <= most_grid_rows;
}

// The number of partial results of each of `groups` sums over `rows` rows of pixels, of which `wanted` fill the device:
// no more than there are rows, and enough that none of them is a long sum.
inline int64_t partial_results(int64_t wanted, int64_t groups, int64_t rows) {
  constexpr int64_t fewest = 16;
  return std::clamp<int64_t>(std::max(wanted, fewest) / groups, 1, rows);
}

}  // namespace elsa::cuda
