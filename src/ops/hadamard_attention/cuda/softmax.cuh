// The softmax over K² of hadamard_attention, and its gradient: 8 lanes share the K² numbers of a pixel
// and head.
#pragma once

#include <cmath>

#include "any.cuh"
#include "steps.h"

namespace elsa::hadamard_attention {

using namespace cuda;

// A lane keeps up to softmax_kept numbers in registers, which is enough for K = 7. Where K² is larger it keeps none and
// reads them three times.
constexpr int softmax_lanes = 8, softmax_kept = 7;

template <typename Number, bool Backward, int Kept>
struct SoftmaxTraits {
  using T = Number;
  static constexpr bool backward = Backward;
  static constexpr int kept = Kept;
};

// Fold the numbers of the lanes that share a pixel and head; all of them get the result.
template <typename A, typename Fold>
__device__ A over_lanes(A number, const Fold& fold) {
#pragma unroll
  for (int distance = softmax_lanes / 2; distance > 0; distance /= 2) {
    number = fold(number, __shfl_xor_sync(0xffffffff, number, distance));
  }
  return number;
}

template <typename Traits>
__global__ void __launch_bounds__(any_threads, any_resident_blocks) softmax_kernel(const Softmax op) {
  using T = typename Traits::T;
  using A = Accumulator<T>;
  constexpr bool backward = Traits::backward;
  constexpr int kept_numbers = Traits::kept;
  const int64_t taps = op.shape.neighbourhood.kernel_size * op.shape.neighbourhood.kernel_size;
  const auto add = [](A left, A right) { return left + right; };
  const auto larger = [](A left, A right) { return left > right || left != left ? left : right; };
  const int lane = threadIdx.x % softmax_lanes;
  for_results(op.out, op.shape.batch, op.shape.heads, softmax_lanes, [&](const Element& pixel, bool exists) {
    const int64_t channel = pixel.channel * taps;
    const T* in = op.in.at<const T>(pixel.sample, channel, pixel.row, pixel.column);
    const T* attn = backward ? op.attn.at<const T>(pixel.sample, channel, pixel.row, pixel.column) : nullptr;
    T* out = op.out.at<T>(pixel.sample, channel, pixel.row, pixel.column);
    const auto read = [&](int64_t tap) {
      const A number = widened(in[tap * op.in.channel_stride]);
      return !backward && op.bias ? number + widened(static_cast<const T*>(op.bias)[channel + tap]) : number;
    };
    const auto read_attn = [&](int64_t tap) { return backward ? widened(attn[tap * op.attn.channel_stride]) : A(0); };

    A kept[kept_numbers + 1], kept_attn[kept_numbers + 1];
#pragma unroll
    for (int k = 0; k < kept_numbers; ++k) {
      const int tap = k * softmax_lanes + lane;
      const bool inside = exists && tap < taps;
      kept[k] = inside ? read(tap) : A(0), kept_attn[k] = inside ? read_attn(tap) : A(0);
    }
    // Call function(tap, number, attn) for the lane's taps.
    const auto for_taps = [&](const auto& function) {
      if constexpr (kept_numbers > 0) {
#pragma unroll
        for (int k = 0; k < kept_numbers; ++k) {
          const int tap = k * softmax_lanes + lane;
          if (exists && tap < taps) function(tap, kept[k], kept_attn[k]);
        }
      } else {
        for (int64_t tap = lane; exists && tap < taps; tap += softmax_lanes) function(tap, read(tap), read_attn(tap));
      }
    };

    A sum = 0;
    if constexpr (backward) {
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
