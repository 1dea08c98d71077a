// ghost_head for what the kernels with a compile-time K leave: other kernel sizes, strides, float64, huge maps.
#pragma once

#include "../../../cuda/local.cuh"
#include "matrix.cuh"
#include "passes.h"

namespace elsa::ghost_head {

using namespace cuda;

template <typename T, bool Adjoint>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) gather_any_kernel(const Gather op) {
  const Shape& shape = op.shape;
  const int64_t K = shape.x.kernel_size, d = shape.x.dilation, reach = K / 2 * d;
  // In the adjoint the source's pixels stand `spacing` apart on the grid of the output.
  const int stride = int(shape.x.stride), step = Adjoint ? 1 : stride, spacing = Adjoint ? stride : 1;
  const int head_channels = int(shape.channels / shape.heads);
  for_results(op.out, shape.batch, shape.channels, 1, [&](const Element& out, bool exists) {
    if (!exists) return;
    const TapRange rows = taps_inside(step * out.row - reach, d, K, (op.source.height - 1) * spacing + 1);
    const TapRange columns = taps_inside(step * out.column - reach, d, K, (op.source.width - 1) * spacing + 1);
    const int64_t head_taps = int(out.channel) / head_channels * K * K, matrix = out.channel * K * K;
    Accumulator<T> sum = 0;
    int64_t y = rows.position;
    for (int64_t i = rows.first; i < rows.last; ++i, y += d) {
      const int row = int(y) / spacing;
      if (row * spacing != y) continue;
      int64_t x = columns.position;
      for (int64_t j = columns.first; j < columns.last; ++j, x += d) {
        const int column = int(x) / spacing;
        if (column * spacing != x) continue;
        const int64_t tap = Adjoint ? (K - 1 - i) * K + K - 1 - j : i * K + j;
        Accumulator<T> weight = widened(
            *op.attn.at<const T>(out.sample, head_taps + tap, Adjoint ? row : out.row, Adjoint ? column : out.column));
        if (op.mul.data) weight *= Matrix<T>(op.mul).at(out.sample * op.mul.batch_stride + matrix + tap);
        if (op.add.data) weight += Matrix<T>(op.add).at(out.sample * op.add.batch_stride + matrix + tap);
        sum += weight * widened(*op.source.at<const T>(out.sample, out.channel, row, column));
      }
    }
    *op.out.at<T>(out.sample, out.channel, out.row, out.column) = rounded<T>(sum);
  });
}

template <typename T>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) grad_attn_any_kernel(const Reduce op) {
  const Shape& shape = op.shape;
  const int64_t K = shape.x.kernel_size, d = shape.x.dilation;
  const int64_t taps = K * K, head_channels = shape.channels / shape.heads;
  for_results(op.grad_attn, shape.batch, shape.heads * taps, 1, [&](const Element& out, bool exists) {
    if (!exists) return;
    const unsigned head = unsigned(out.channel) / unsigned(taps), tap = unsigned(out.channel) % unsigned(taps);
    const int64_t row = out.row * shape.x.stride + (tap / unsigned(K) - K / 2) * d;
    const int64_t column = out.column * shape.x.stride + (tap % unsigned(K) - K / 2) * d;
    Accumulator<T> sum = 0;
    if (row >= 0 && row < op.value.height && column >= 0 && column < op.value.width) {
      for (int64_t channel = head * head_channels; channel < (head + 1) * head_channels; ++channel) {
        Accumulator<T> product = widened(*op.grad.at<const T>(out.sample, channel, out.row, out.column)) *
                                 widened(*op.value.at<const T>(out.sample, channel, row, column));
        if (op.mul.data) product *= Matrix<T>(op.mul).at(out.sample * op.mul.batch_stride + channel * taps + tap);
        sum += product;
      }
    }
    *op.grad_attn.at<T>(out.sample, out.channel, out.row, out.column) = rounded<T>(sum);
  });
}

// Sums over pixels for the gradients of the matrices. A thread has one element of these, along x of the grid, and the
// partial results blockIdx.y, blockIdx.y + gridDim.y, … `source_of_tap` gives the source that a tap of an output looks
// at along an axis, if it counts and finds one.
template <typename T, typename SourceOfTap>
__device__ void add_over_pixels(const Reduce& op, const SourceOfTap& source_of_tap) {
  using A = Accumulator<T>;
  const Shape& shape = op.shape;
  const int64_t taps = shape.taps(), columns = shape.x.kernel_size;
  const int64_t index = int64_t(blockIdx.x) * any_threads + threadIdx.x, sum_samples = shape.batch / op.sums;
  if (index >= shape.channels * taps) return;
  const int64_t channel = index % shape.channels, tap = index / shape.channels;
  const int64_t attn_channel = channel / shape.head_channels() * taps + tap;
  for (int64_t partial = blockIdx.y; partial < op.sums * op.chunks; partial += gridDim.y) {
    const int64_t sum_index = partial / op.chunks;
    A sum_mul = 0, sum_add = 0;
    RowOfPixels unit(partial - sum_index * op.chunks, op.grad.height);
    for (; unit.sample < sum_samples; unit.advance(op.chunks, op.grad.height)) {
      const int64_t sample = sum_index * sum_samples + unit.sample, y = unit.row;
      const Source row = source_of_tap(shape.y, y, tap / columns, shape.height);
      if (!row.inside) continue;
      for (int64_t x = 0; x < op.grad.width; ++x) {
        const Source column = source_of_tap(shape.x, x, tap % columns, shape.width);
        if (!column.inside) continue;
        const A product = widened(*op.grad.at<const T>(sample, channel, y, x)) *
                          widened(*op.value.at<const T>(sample, channel, row.position, column.position));
        sum_add += product;
        if (op.partial_mul) sum_mul += product * widened(*op.attn.at<const T>(sample, attn_channel, y, x));
      }
    }
    const int64_t to = (partial * shape.channels + channel) * taps + tap;
    if (op.partial_mul) static_cast<A*>(op.partial_mul)[to] = sum_mul;
    if (op.partial_add) static_cast<A*>(op.partial_add)[to] = sum_add;
  }
}

template <typename T>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) grad_matrices_any_kernel(const Reduce op) {
  add_over_pixels<T>(op, [](const Neighbourhood& axis, int64_t output, int64_t tap, int64_t length) {
    const int64_t position = output * axis.stride + (tap - axis.kernel_size / 2) * axis.dilation;
    return Source{position, position >= 0 && position < length};
  });
}

}  // namespace elsa::ghost_head
