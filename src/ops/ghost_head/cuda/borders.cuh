// ghost_head at every border, with sizes for each axis: what is not square. See contract.h.
#pragma once

#include "any.cuh"

namespace elsa::ghost_head {

using namespace cuda;

// Call f(source, tap) for the sources in the map that an output of an axis looks at.
template <typename Function>
__device__ void for_sources(const Neighbourhood& axis, int64_t output, int64_t length, const Function& f) {
  const Taps taps = axis.taps(output * axis.stride, length);
  for (int64_t tap = taps.begin; tap < taps.end; ++tap) {
    const Source source = source_of(axis, taps, tap, length);
    if (source.inside) f(source.position, tap);
  }
}

// Call f(output, tap) for the outputs that look at a source.
template <typename Function>
__device__ void for_strided_outputs(const Neighbourhood& axis, int64_t source, int64_t length, const Function& f) {
  for_outputs(axis, source, length, [&](int64_t place, int64_t tap) {
    const int64_t output = place / axis.stride;
    if (output * axis.stride == place && output < length / axis.stride) f(output, tap);
  });
}

template <bool Adjoint, typename Function>
__device__ void for_neighbours(const Neighbourhood& axis, int64_t result, int64_t length, const Function& f) {
  if constexpr (Adjoint) {
    for_strided_outputs(axis, result, length, f);
  } else {
    for_sources(axis, result, length, f);
  }
}

// T is the type of the maps, To that of the result.
template <typename T, typename To, bool Adjoint>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) gather_borders_kernel(const Gather op) {
  using A = Accumulator<T>;
  const Shape& shape = op.shape;
  for_results(op.out, shape.batch, shape.channels, 1, [&](const Element& out, bool exists) {
    if (!exists) return;
    const int64_t taps = shape.taps(), head_taps = out.channel / shape.head_channels() * taps;
    const int64_t matrix = out.channel * taps;
    A sum = 0;
    for_neighbours<Adjoint>(shape.y, out.row, shape.height, [&](int64_t row, int64_t i) {
      A of_row = 0;
      for_neighbours<Adjoint>(shape.x, out.column, shape.width, [&](int64_t column, int64_t j) {
        const int64_t tap = i * shape.x.kernel_size + j;
        A weight = widened(
            *op.attn.at<const T>(out.sample, head_taps + tap, Adjoint ? row : out.row, Adjoint ? column : out.column));
        if (op.mul.data) weight *= Matrix<T>(op.mul).at(out.sample * op.mul.batch_stride + matrix + tap);
        if (op.add.data) weight += Matrix<T>(op.add).at(out.sample * op.add.batch_stride + matrix + tap);
        of_row += weight * widened(*op.source.at<const T>(out.sample, out.channel, row, column));
      });
      sum += of_row;
    });
    *op.out.at<To>(out.sample, out.channel, out.row, out.column) = rounded<To>(sum);
  });
}

// The source that a tap of an output looks at, if it counts and finds one.
__device__ inline Source source_that_counts(const Neighbourhood& axis, int64_t output, int64_t tap, int64_t length) {
  const Taps taps = axis.taps(output * axis.stride, length);
  if (tap < taps.begin || tap >= taps.end) return {0, false};
  return source_of(axis, taps, tap, length);
}

template <typename T>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) grad_attn_borders_kernel(const Reduce op) {
  using A = Accumulator<T>;
  const Shape& shape = op.shape;
  for_results(op.grad_attn, shape.batch, shape.heads * shape.taps(), 1, [&](const Element& out, bool exists) {
    if (!exists) return;
    const int64_t taps = shape.taps(), head = out.channel / taps, tap = out.channel % taps;
    const int64_t columns = shape.x.kernel_size;
    const Source row = source_that_counts(shape.y, out.row, tap / columns, shape.height);
    const Source column = source_that_counts(shape.x, out.column, tap % columns, shape.width);
    A sum = 0;
    const int64_t last = row.inside && column.inside ? (head + 1) * shape.head_channels() : 0;
    for (int64_t first = head * shape.head_channels(); first < last; first += channels_at_once) {
      A of_block = 0;
      for (int64_t channel = first; channel < smaller(first + channels_at_once, last); ++channel) {
        A product = widened(*op.grad.at<const T>(out.sample, channel, out.row, out.column)) *
                    widened(*op.value.at<const T>(out.sample, channel, row.position, column.position));
        if (op.mul.data) product *= Matrix<T>(op.mul).at(out.sample * op.mul.batch_stride + channel * taps + tap);
        of_block += product;
      }
      sum += of_block;
    }
    *op.grad_attn.at<T>(out.sample, out.channel, out.row, out.column) = rounded<T>(sum);
  });
}

template <typename T>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) grad_matrices_borders_kernel(const Reduce op) {
  add_over_pixels<T>(op, source_that_counts);
}

}  // namespace elsa::ghost_head
