// Local attention for any call: one thread per result, sums over taps or channels. See core/local_attention.h.
#pragma once

#include <cmath>

#include "../core/local_attention.h"
#include "any.cuh"

namespace elsa::cuda {

// The source that a tap of an output reads; `inside` where that lies in the map.
struct Source {
  int64_t position;
  bool inside;
};

__device__ inline Source source_of(const Neighbourhood& axis, const Taps& taps, int64_t tap, int64_t length) {
  int64_t position = taps.first + tap * axis.dilation;
  if (axis.border == Border::circular) {
    position %= length;
    if (position < 0) position += length;
  }
  return {position, position >= 0 && position < length};
}

// Call f(output, tap) for the outputs that look at a source, and the tap by which they do.
template <typename Function>
__device__ void for_outputs(const Neighbourhood& axis, int64_t source, int64_t length, const Function& f) {
  if (axis.border != Border::shift) {
    for (int64_t tap = 0; tap < axis.kernel_size; ++tap) {
      int64_t output = source - (tap - axis.kernel_size / 2) * axis.dilation;
      if (axis.border == Border::circular) {
        output %= length;
        if (output < 0) output += length;
      }
      if (output >= 0 && output < length) f(output, tap);
    }
    return;
  }
  const int64_t residue = source % axis.dilation, place = source / axis.dilation;
  const int64_t farthest = axis.kernel_size + axis.window_stride;
  const int64_t last = smaller(place + farthest, divide_up(length - residue, axis.dilation) - 1);
  for (int64_t k = larger(place - farthest, 0); k <= last; ++k) {
    const Taps taps = axis.taps(k * axis.dilation + residue, length);
    const int64_t tap = (source - taps.first) / axis.dilation;
    if (source >= taps.first && tap >= taps.begin && tap < taps.end) f(k * axis.dilation + residue, tap);
  }
}

// The taps that a thread has as results: a head's, along both axes.
struct HeadTap {
  int64_t head, row, column;

  __device__ HeadTap(const LocalShape& shape, int64_t channel) {
    const int64_t taps = shape.taps(), tap = channel % taps;
    head = channel / taps, row = tap / shape.x.kernel_size, column = tap % shape.x.kernel_size;
  }
};

// to[h,t,i] = scale · Σ_c outputs[h,c,i] · sources[h,c,j(i,t)] + bias[h,t,i], and where a tap does not count −∞, or
// 0 if `plain`.
struct ProductPass {
  LocalShape shape;
  int64_t channels;  // of a head
  MapView outputs, sources, to;
  BiasView bias;
  double scale;
  bool plain;
};

// Sums of very many channels, or taps, are made of those of blocks: they would lose the last ones.
constexpr int64_t channels_at_once = 64;

// T is the type of the maps, To that of the result.
template <typename T, typename To>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) product_kernel(const ProductPass op) {
  using A = Accumulator<T>;
  const LocalShape& shape = op.shape;
  for_results(op.to, shape.batch, shape.heads * shape.taps(), 1, [&](const Element& out, bool exists) {
    if (!exists) return;
    const HeadTap tap(shape, out.channel);
    const Taps y = shape.y.taps(out.row, shape.height), x = shape.x.taps(out.column, shape.width);
    A result = op.plain ? A(0) : -A(INFINITY);
    if (tap.row >= y.begin && tap.row < y.end && tap.column >= x.begin && tap.column < x.end) {
      const Source row = source_of(shape.y, y, tap.row, shape.height);
      const Source column = source_of(shape.x, x, tap.column, shape.width);
      A sum = 0;
      const int64_t last = row.inside && column.inside ? (tap.head + 1) * op.channels : 0;
      for (int64_t first = tap.head * op.channels; first < last; first += channels_at_once) {
        A of_block = 0;
        for (int64_t c = first; c < smaller(first + channels_at_once, last); ++c) {
          of_block += widened(*op.outputs.at<const T>(out.sample, c, out.row, out.column)) *
                      widened(*op.sources.at<const T>(out.sample, c, row.position, column.position));
        }
        sum += of_block;
      }
      result = sum * A(op.scale);
      if (op.bias.data) {
        const int64_t index = op.bias.place(shape.y, y.offset, tap.row) * op.bias.columns(shape) +
                              op.bias.place(shape.x, x.offset, tap.column);
        const int64_t at = out.sample * op.bias.batch_stride + tap.head * op.bias.head_size(shape) + index;
        result += op.bias.dtype == DType::float32 ? A(static_cast<const float*>(op.bias.data)[at])
                                                  : A(widened(static_cast<const T*>(op.bias.data)[at]));
      }
    }
    *op.to.at<To>(out.sample, out.channel, out.row, out.column) = rounded<To>(result);
  });
}

// to[h,c,i] = scale · Σ_t weights[h,t,i] · sources[h,c,j(i,t)], or for the adjoint the sum over the outputs and taps
// that lead to a source.
struct SumPass {
  LocalShape shape;
  int64_t channels;  // of a head
  MapView weights, sources, to;
  double scale;
};

template <typename W, typename T, typename To>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) sum_kernel(const SumPass op) {
  using A = Accumulator<T>;
  const LocalShape& shape = op.shape;
  for_results(op.to, shape.batch, shape.heads * op.channels, 1, [&](const Element& out, bool exists) {
    if (!exists) return;
    const int64_t first = out.channel / op.channels * shape.taps();
    const Taps y = shape.y.taps(out.row, shape.height), x = shape.x.taps(out.column, shape.width);
    A sum = 0;
    for (int64_t i = y.begin; i < y.end; ++i) {
      const Source row = source_of(shape.y, y, i, shape.height);
      A of_row = 0;
      for (int64_t j = x.begin; row.inside && j < x.end; ++j) {
        const Source column = source_of(shape.x, x, j, shape.width);
        if (!column.inside) continue;
        of_row +=
            widened(*op.weights.at<const W>(out.sample, first + i * shape.x.kernel_size + j, out.row, out.column)) *
            widened(*op.sources.at<const T>(out.sample, out.channel, row.position, column.position));
      }
      sum += of_row;
    }
    *op.to.at<To>(out.sample, out.channel, out.row, out.column) = rounded<To>(sum * A(op.scale));
  });
}

template <typename W, typename T, typename To>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) adjoint_sum_kernel(const SumPass op) {
  using A = Accumulator<T>;
  const LocalShape& shape = op.shape;
  for_results(op.to, shape.batch, shape.heads * op.channels, 1, [&](const Element& out, bool exists) {
    if (!exists) return;
    const int64_t first = out.channel / op.channels * shape.taps();
    A sum = 0;
    for_outputs(shape.y, out.row, shape.height, [&](int64_t row, int64_t i) {
      for_outputs(shape.x, out.column, shape.width, [&](int64_t column, int64_t j) {
        sum += widened(*op.weights.at<const W>(out.sample, first + i * shape.x.kernel_size + j, row, column)) *
               widened(*op.sources.at<const T>(out.sample, out.channel, row, column));
      });
    });
    *op.to.at<To>(out.sample, out.channel, out.row, out.column) = rounded<To>(sum * A(op.scale));
  });
}

// Partial sums of the gradient of a bias, [batch][chunks][heads][head_size], from that of the logits. A thread has one
// element, along x of the grid, and the partial results blockIdx.y, blockIdx.y + gridDim.y, …
struct BiasPass {
  LocalShape shape;
  BiasView bias;
  MapView grad;  // of the logits
  void* partial;
  int64_t chunks;
};

template <typename W>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) bias_kernel(const BiasPass op) {
  using A = Accumulator<W>;
  const LocalShape& shape = op.shape;
  const int64_t size = op.bias.head_size(shape), index = int64_t(blockIdx.x) * any_threads + threadIdx.x;
  if (index >= shape.heads * size) return;
  const int64_t head = index / size, row = index % size / op.bias.columns(shape);
  const int64_t column = index % op.bias.columns(shape);
  for (int64_t partial = blockIdx.y; partial < shape.batch * op.chunks; partial += gridDim.y) {
    const int64_t sample = partial / op.chunks, chunk = partial % op.chunks;
    A sum = 0;
    for (int64_t y = chunk; y < shape.height; y += op.chunks) {
      const Taps rows = shape.y.taps(y, shape.height);
      const int64_t i = row - op.bias.place(shape.y, rows.offset, 0);
      if (i < rows.begin || i >= rows.end) continue;
      for (int64_t x = 0; x < shape.width; ++x) {
        const Taps columns = shape.x.taps(x, shape.width);
        const int64_t j = column - op.bias.place(shape.x, columns.offset, 0);
        if (j < columns.begin || j >= columns.end) continue;
        sum += widened(*op.grad.at<const W>(sample, (head * shape.y.kernel_size + i) * shape.x.kernel_size + j, y, x));
      }
    }
    static_cast<A*>(op.partial)[partial * shape.heads * size + index] = sum;
  }
}

// The softmax over a head's taps of an output, in place.
struct SoftmaxPass {
  LocalShape shape;
  MapView attn;  // logits before
};

template <typename A>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) softmax_kernel(const SoftmaxPass op) {
  for_results(op.attn, op.shape.batch, op.shape.heads, 1, [&](const Element& out, bool exists) {
    if (!exists) return;
    const int64_t first = out.channel * op.shape.taps(), last = first + op.shape.taps();
    const auto at = [&](int64_t tap) { return op.attn.at<A>(out.sample, tap, out.row, out.column); };
    A largest = -A(INFINITY), sum = 0;
    for (int64_t tap = first; tap < last; ++tap) largest = *at(tap) > largest ? *at(tap) : largest;
    for (int64_t row = first; row < last; row += op.shape.x.kernel_size) {
      A of_row = 0;
      for (int64_t tap = row; tap < row + op.shape.x.kernel_size; ++tap) of_row += *at(tap) = exp(*at(tap) - largest);
      sum += of_row;
    }
    for (int64_t tap = first; tap < last; ++tap) *at(tap) /= sum;
  });
}

// The gradient of the logits in the place of that of the attention.
struct SoftmaxBackwardPass {
  LocalShape shape;
  MapView attn, grad;
};

template <typename A>
__global__ void __launch_bounds__(any_threads, any_resident_blocks)
    softmax_backward_kernel(const SoftmaxBackwardPass op) {
  for_results(op.grad, op.shape.batch, op.shape.heads, 1, [&](const Element& out, bool exists) {
    if (!exists) return;
    const int64_t first = out.channel * op.shape.taps(), last = first + op.shape.taps();
    const auto attn = [&](int64_t tap) { return *op.attn.at<const A>(out.sample, tap, out.row, out.column); };
    const auto grad = [&](int64_t tap) { return op.grad.at<A>(out.sample, tap, out.row, out.column); };
    A sum = 0;
    for (int64_t row = first; row < last; row += op.shape.x.kernel_size) {
      A of_row = 0;
      for (int64_t tap = row; tap < row + op.shape.x.kernel_size; ++tap) of_row += attn(tap) * *grad(tap);
      sum += of_row;
    }
    for (int64_t tap = first; tap < last; ++tap) *grad(tap) = attn(tap) * (*grad(tap) - sum);
  });
}

}  // namespace elsa::cuda
