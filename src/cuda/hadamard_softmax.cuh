// The softmax over K² of hadamard_attention, and its gradient: 8 lanes for the taps of a pixel and head.
#pragma once

#include <cmath>

#include "any.cuh"
#include "elsa/hadamard_attention.h"

namespace elsa::cuda {

constexpr int softmax_lanes = 8;

// Fold the numbers of the lanes that share a row.
template <typename A, typename Fold>
__device__ A over_lanes(A number, const Fold& fold) {
#pragma unroll
  for (int distance = softmax_lanes / 2; distance > 0; distance /= 2) {
    number = fold(number, __shfl_xor_sync(0xffffffff, number, distance));
  }
  return number;
}

// All lanes of a warp run the same number of rounds, so that all are there to exchange numbers.
template <typename T, bool Backward>
__global__ void __launch_bounds__(any_threads) hadamard_softmax_kernel(const HadamardSoftmax op) {
  using A = Accumulator<T>;
  const HadamardShape& shape = op.shape;
  const int64_t taps = shape.kernel_size * shape.kernel_size;
  const int64_t rows = shape.batch * shape.heads * op.out.height * op.out.width;
  const auto add = [](A left, A right) { return left + right; };
  const auto larger = [](A left, A right) { return left > right || left != left ? left : right; };
  const int lane = threadIdx.x % softmax_lanes;
  const int64_t rounds = (rows * softmax_lanes + result_step() - 1) / result_step();
  for (int64_t round = 0; round < rounds; ++round) {
    const int64_t index = (first_result() + round * result_step()) / softmax_lanes;
    const bool works = index < rows;
    const Element row = element_at(op.out, shape.heads, works ? index : 0);
    const int64_t channel = row.channel * taps;
    const T* in = at<const T>(op.in, row.sample, channel, row.row, row.column);
    T* out = at<T>(op.out, row.sample, channel, row.row, row.column);
    if constexpr (Backward) {
      const T* attn = at<const T>(op.attn, row.sample, channel, row.row, row.column);
      A sum = 0;
      for (int64_t tap = lane; works && tap < taps; tap += softmax_lanes) {
        sum += widened(in[tap * op.in.channel_stride]) * widened(attn[tap * op.attn.channel_stride]);
      }
      sum = over_lanes(sum, add);
      for (int64_t tap = lane; works && tap < taps; tap += softmax_lanes) {
        const A difference = widened(in[tap * op.in.channel_stride]) - sum;
        out[tap * op.out.channel_stride] = rounded<T>(widened(attn[tap * op.attn.channel_stride]) * difference);
      }
    } else {
      const auto logit = [&](int64_t tap) {
        const A bias = op.bias ? widened(static_cast<const T*>(op.bias)[channel + tap]) : A(0);
        return widened(in[tap * op.in.channel_stride]) + bias;
      };
      A largest = -INFINITY, sum = 0;
      for (int64_t tap = lane; works && tap < taps; tap += softmax_lanes) largest = larger(largest, logit(tap));
      largest = over_lanes(largest, larger);
      for (int64_t tap = lane; works && tap < taps; tap += softmax_lanes) sum += std::exp(logit(tap) - largest);
      sum = over_lanes(sum, add);
      for (int64_t tap = lane; works && tap < taps; tap += softmax_lanes) {
        out[tap * op.out.channel_stride] = rounded<T>(std::exp(logit(tap) - largest) / sum);
      }
    }
  }
}

}  // namespace elsa::cuda
