// The softmax over K² of hadamard_attention, and its gradient: 8 lanes for the taps of a pixel and head.
#pragma once

#include <cmath>

#include "any.cuh"
#include "steps.h"

namespace elsa::hadamard_attention {

using namespace cuda;

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

// A lane keeps its `Kept` numbers of a row in registers; if Kept is 0, for more taps than that, it reads them again.
template <typename T, bool Backward, int Kept>
__global__ void __launch_bounds__(any_threads, any_blocks) softmax_kernel(const Softmax op) {
  using A = Accumulator<T>;
  const int64_t taps = op.shape.neighbourhood.kernel_size * op.shape.neighbourhood.kernel_size;
  const auto add = [](A left, A right) { return left + right; };
  const auto larger = [](A left, A right) { return left > right || left != left ? left : right; };
  const int lane = threadIdx.x % softmax_lanes;
  for_results(op.out, op.shape.batch, op.shape.heads, softmax_lanes, [&](const Element& row, bool exists) {
    const int64_t channel = row.channel * taps;
    const T* in = at<const T>(op.in, row.sample, channel, row.row, row.column);
    const T* attn = Backward ? at<const T>(op.attn, row.sample, channel, row.row, row.column) : nullptr;
    T* out = at<T>(op.out, row.sample, channel, row.row, row.column);
    const auto read = [&](int64_t tap) {
      const A number = widened(in[tap * op.in.channel_stride]);
      return !Backward && op.bias ? number + widened(static_cast<const T*>(op.bias)[channel + tap]) : number;
    };
    const auto read_attn = [&](int64_t tap) { return Backward ? widened(attn[tap * op.attn.channel_stride]) : A(0); };

    A kept[Kept + 1], kept_attn[Kept + 1];
#pragma unroll
    for (int k = 0; k < Kept; ++k) {
      const int tap = k * softmax_lanes + lane;
      const bool inside = exists && tap < taps;
      kept[k] = inside ? read(tap) : A(0), kept_attn[k] = inside ? read_attn(tap) : A(0);
    }
    // Call f(tap, number, attn) for the lane's taps.
    const auto for_taps = [&](const auto& f) {
      if constexpr (Kept > 0) {
#pragma unroll
        for (int k = 0; k < Kept; ++k) {
          const int tap = k * softmax_lanes + lane;
          if (exists && tap < taps) f(tap, kept[k], kept_attn[k]);
        }
      } else {
        for (int64_t tap = lane; exists && tap < taps; tap += softmax_lanes) f(tap, read(tap), read_attn(tap));
      }
    };

    A sum = 0;
    if constexpr (Backward) {
      for_taps([&](int64_t, A grad, A weight) { sum += grad * weight; });
      sum = over_lanes(sum, add);
      for_taps(
          [&](int64_t tap, A grad, A weight) { out[tap * op.out.channel_stride] = rounded<T>(weight * (grad - sum)); });
    } else {
      A largest = -INFINITY;
      for_taps([&](int64_t, A logit, A) { largest = larger(largest, logit); });
      largest = over_lanes(largest, larger);
      for_taps([&](int64_t, A logit, A) { sum += std::exp(logit - largest); });
      sum = over_lanes(sum, add);
      for_taps([&](int64_t tap, A logit, A) {
        out[tap * op.out.channel_stride] = rounded<T>(std::exp(logit - largest) / sum);
      });
    }
  });
}

}  // namespace elsa::hadamard_attention
