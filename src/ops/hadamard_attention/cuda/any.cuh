// hadamard_attention for what the kernels with a compile-time K leave: other kernel sizes, strides, group widths that
// are not multiples of 4, float64, huge maps.
#pragma once

#include <cmath>

#include "../../../cuda/any.cuh"
#include "../../../cuda/gelu.cuh"
#include "steps.h"

namespace elsa::hadamard_attention {

using namespace cuda;

// The sum of query ⊙ key over the pixels that are pooled to one.
template <typename T>
__device__ Accumulator<T> pooled_product(const Conv& op, int64_t sample, int64_t channel, int64_t row, int64_t column) {
  const int64_t s = op.shape.pooling;
  Accumulator<T> sum = 0;
  for (int64_t y = row * s; y < (row + 1) * s; ++y) {
    for (int64_t x = column * s; x < (column + 1) * s; ++x) {
      sum +=
          widened(*op.query.at<const T>(sample, channel, y, x)) * widened(*op.key.at<const T>(sample, channel, y, x));
    }
  }
  return sum;
}

// The factor of a pooled sum: the scale, and one over the number of pixels.
__device__ inline double pooled_scale(const Conv& op) { return op.scale / double(op.shape.pooling * op.shape.pooling); }

// The convolution of the products, or its adjoint of `grad`, at one element.
template <typename T, bool Adjoint>
__device__ Accumulator<T> conv_at(const Conv& op, const Element& out) {
  const Shape& shape = op.shape;
  const int64_t K = shape.neighbourhood.kernel_size, d = shape.neighbourhood.dilation;
  const int64_t width = shape.channels / shape.groups;
  const TapRange rows = taps_inside(out.row - K / 2 * d, d, K, op.hidden.height);
  const TapRange columns = taps_inside(out.column - K / 2 * d, d, K, op.hidden.width);
  const int64_t first_of_group = int(out.channel) / int(width) * width;
  Accumulator<T> sum = 0;
  for (int64_t i = rows.first, y = rows.position; i < rows.last; ++i, y += d) {
    for (int64_t j = columns.first, x = columns.position; j < columns.last; ++j, x += d) {
      const int64_t tap = Adjoint ? (K - 1 - i) * K + K - 1 - j : i * K + j;
      for (int64_t k = 0; k < width; ++k) {
        const int64_t other = first_of_group + k;
        const int64_t weight = Adjoint ? other * width + out.channel - first_of_group : out.channel * width + k;
        const Accumulator<T> source = Adjoint ? widened(*op.grad.at<const T>(out.sample, other, y, x))
                                              : pooled_product<T>(op, out.sample, other, y, x);
        sum += widened(static_cast<const T*>(op.weight)[weight * K * K + tap]) * source;
      }
    }
  }
  return sum;
}

template <typename T, ConvStep Step>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) conv_any_kernel(const Conv op) {
  using A = Accumulator<T>;
  const int64_t s = op.shape.pooling;
  for_results(op.hidden, op.shape.batch, op.shape.channels, 1, [&](const Element& out, bool exists) {
    if (!exists) return;
    const A sum = conv_at<T, Step == ConvStep::adjoint>(op, out) * A(pooled_scale(op));
    if constexpr (Step == ConvStep::adjoint) {
      for (int64_t y = out.row * s; y < (out.row + 1) * s; ++y) {
        for (int64_t x = out.column * s; x < (out.column + 1) * s; ++x) {
          const A query = widened(*op.query.at<const T>(out.sample, out.channel, y, x));
          const A key = widened(*op.key.at<const T>(out.sample, out.channel, y, x));
          if (op.grad_query.data) *op.grad_query.at<T>(out.sample, out.channel, y, x) = rounded<T>(sum * key);
          if (op.grad_key.data) *op.grad_key.at<T>(out.sample, out.channel, y, x) = rounded<T>(sum * query);
        }
      }
    } else {
      const A before = sum + (op.bias ? widened(static_cast<const T*>(op.bias)[out.channel]) : A(0));
      *op.hidden.at<T>(out.sample, out.channel, out.row, out.column) = rounded<T>(gelu(before));
      if constexpr (Step == ConvStep::recompute) {
        T* grad = op.grad.at<T>(out.sample, out.channel, out.row, out.column);
        *grad = rounded<T>(widened(*grad) * gelu_derivative(before));
      }
    }
  });
}

// A thread has one weight, along x of the grid, and its partial result blockIdx.y: that of the rows of pixels
// blockIdx.y, blockIdx.y + chunks, …
template <typename T>
__global__ void __launch_bounds__(any_threads, any_resident_blocks)
    weight_gradient_any_kernel(const WeightGradient gradient) {
  using A = Accumulator<T>;
  const Conv& op = gradient.conv;
  const Shape& shape = op.shape;
  const int64_t K = shape.neighbourhood.kernel_size, d = shape.neighbourhood.dilation;
  const int64_t width = shape.channels / shape.groups;
  const int64_t elements = shape.channels * width * K * K, index = int64_t(blockIdx.x) * any_threads + threadIdx.x;
  if (index >= elements) return;
  const int64_t channel = index / (width * K * K), in = index / (K * K) % width, tap = index % (K * K);
  const int64_t other = channel / width * width + in;
  const int64_t dy = (tap / K - K / 2) * d, dx = (tap % K - K / 2) * d;
  A sum = 0, bias = 0;
  RowOfPixels unit(blockIdx.y, op.hidden.height);
  for (; unit.sample < shape.batch; unit.advance(gradient.chunks, op.hidden.height)) {
    for (int64_t x = 0; x < op.hidden.width; ++x) {
      const A grad = widened(*op.grad.at<const T>(unit.sample, channel, unit.row, x));
      bias += grad;
      if (unit.row + dy >= 0 && unit.row + dy < op.hidden.height && x + dx >= 0 && x + dx < op.hidden.width) {
        sum += grad * pooled_product<T>(op, unit.sample, other, unit.row + dy, x + dx);
      }
    }
  }
  static_cast<A*>(gradient.partial_weight)[blockIdx.y * elements + index] = sum * A(pooled_scale(op));
  if (in == 0 && tap == 0) static_cast<A*>(gradient.partial_bias)[blockIdx.y * shape.channels + channel] = bias;
}

// Lanes of a warp that share the K² numbers of a pixel and head, in the softmax and its gradient.
constexpr int softmax_lanes = 8;

// Fold a number of each of these lanes; all of them get the result.
template <typename A, typename Fold>
__device__ A over_lanes(A number, const Fold& fold) {
#pragma unroll
  for (int distance = softmax_lanes / 2; distance > 0; distance /= 2) {
    number = fold(number, __shfl_xor_sync(0xffffffff, number, distance));
  }
  return number;
}

template <typename T, bool Backward>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) softmax_any_kernel(const Softmax op) {
  using A = Accumulator<T>;
  const int64_t taps = op.shape.neighbourhood.kernel_size * op.shape.neighbourhood.kernel_size;
  const auto add = [](A left, A right) { return left + right; };
  const auto larger = [](A left, A right) { return left > right || left != left ? left : right; };
  const int lane = threadIdx.x % softmax_lanes;
  for_results(op.out, op.shape.batch, op.shape.heads, softmax_lanes, [&](const Element& pixel, bool exists) {
    const int64_t channel = pixel.channel * taps;
    const auto at = [&](const MapView& map, int64_t tap) {
      return map.at<T>(pixel.sample, channel + tap, pixel.row, pixel.column);
    };
    const auto read = [&](int64_t tap) {
      const A number = widened(*at(op.in, tap));
      return !Backward && op.bias ? number + widened(static_cast<const T*>(op.bias)[channel + tap]) : number;
    };
    const auto for_taps = [&](const auto& function) {
      for (int64_t tap = lane; exists && tap < taps; tap += softmax_lanes) function(tap);
    };
    A sum = 0;
    if constexpr (Backward) {
      for_taps([&](int64_t tap) { sum += read(tap) * widened(*at(op.attn, tap)); });
      sum = over_lanes(sum, add);
      for_taps([&](int64_t tap) { *at(op.out, tap) = rounded<T>(widened(*at(op.attn, tap)) * (read(tap) - sum)); });
    } else {
      A largest = -INFINITY;
      for_taps([&](int64_t tap) { largest = larger(largest, read(tap)); });
      largest = over_lanes(largest, larger);
      for_taps([&](int64_t tap) { sum += std::exp(read(tap) - largest); });
      sum = over_lanes(sum, add);
      for_taps([&](int64_t tap) { *at(op.out, tap) = rounded<T>(std::exp(read(tap) - largest) / sum); });
    }
  });
}

}  // namespace elsa::hadamard_attention
