// The softmax over K² of hadamard_attention, and its gradient, with a compile-time K.
//
// A warp takes 32 neighbouring pixels, a lane the K² numbers of a head of one of them, which it has in registers: so
// sums need no exchange. The logits of 32 pixels, or their gradients, are one run of memory, which goes through shared
// memory in vectors of 16 bytes. So do maps of attention that lie in memory as the logits do:
//
//   run[pixel · channels + head · K² + tap]
//
// Any other map of attention is read and written in place: in contiguous NCHW the 32 lanes have neighbours there.
#pragma once

#include <cmath>

#include "../../../core/index.h"
#include "../../../cuda/strips.cuh"
#include "steps.h"

namespace elsa::hadamard_attention {

using namespace cuda;

template <typename Number, int KernelSize, bool Run, bool Backward>
struct SoftmaxTraits {
  using T = Number;
  static constexpr int taps = KernelSize * KernelSize;
  static constexpr bool run = Run;  // whether maps of attention lie as the logits do
  static constexpr bool backward = Backward;
  static constexpr int threads = warp_lanes;

  // Shared memory: the logits or their gradients, the attention where it is a run, and the sums for the bias.
  static constexpr int runs = Run && Backward ? 2 : 1;
  static size_t shared_bytes(int64_t channels) {
    return size_t(channels) * (runs * warp_lanes * sizeof(T) + (backward ? sizeof(float) : 0));
  }
};

// Copy `count` numbers to or from shared memory. Both ends are multiples of 16 bytes.
template <typename T>
__device__ void copy_run(const T* from, int count, T* to) {
  using Vector = Words<float>;
  constexpr int length = sizeof(Vector) / sizeof(T);
  const int vectors = count / length;
#pragma unroll 4
  for (int v = threadIdx.x; v < vectors; v += warp_lanes) {
    reinterpret_cast<Vector*>(to)[v] = reinterpret_cast<const Vector*>(from)[v];
  }
  for (int k = vectors * length + int(threadIdx.x); k < count; k += warp_lanes) to[k] = from[k];
}

// Add the numbers of a run's pixels to the sum of each channel.
template <typename T>
__device__ void add_run(const T* run, int pixels, int channels, float* sums) {
  for (int channel = threadIdx.x; channel < channels; channel += warp_lanes) {
    float sum = 0;
    for (int pixel = 0; pixel < pixels; ++pixel) sum += widened(run[pixel * channels + channel]);
    sums[channel] += sum;
  }
}

// Numbers of a head of one pixel, `step` apart.
template <typename T>
struct Taps {
  T* data;
  int64_t step;

  __device__ T& operator[](int tap) const { return data[tap * step]; }
};

// The largest logit leaves out what is not a number: that reaches all results by the sum.
template <int taps, typename T>
__device__ void softmax_of(const Taps<T>& logits, const T* bias, const Taps<T>& out) {
  constexpr float log2_e = 1.44269504f;
  float numbers[taps], largest = -INFINITY, sum = 0;
#pragma unroll
  for (int tap = 0; tap < taps; ++tap) {
    numbers[tap] = widened(logits[tap]) + (bias ? widened(bias[tap]) : 0);
    largest = fmaxf(largest, numbers[tap]);
  }
#pragma unroll
  for (int tap = 0; tap < taps; ++tap) {
    numbers[tap] = fast_exp2((numbers[tap] - largest) * log2_e);
    sum += numbers[tap];
  }
  const float reciprocal = 1 / sum;
#pragma unroll
  for (int tap = 0; tap < taps; ++tap) out[tap] = rounded<T>(numbers[tap] * reciprocal);
}

template <int taps, typename T>
__device__ void softmax_gradient(const Taps<T>& grad, const Taps<T>& attn, const Taps<T>& out) {
  float numbers[taps], sum = 0;
#pragma unroll
  for (int tap = 0; tap < taps; ++tap) {
    numbers[tap] = widened(grad[tap]);
    sum += numbers[tap] * widened(attn[tap]);
  }
#pragma unroll
  for (int tap = 0; tap < taps; ++tap) out[tap] = rounded<T>(widened(attn[tap]) * (numbers[tap] - sum));
}

// A thread block is a warp. It takes every gridDim.x-th run, and has one partial sum of the bias's gradient.
template <typename Traits>
__global__ void __launch_bounds__(Traits::threads) softmax_kernel(const Softmax op) {
  using T = typename Traits::T;
  constexpr int taps = Traits::taps;
  constexpr bool run = Traits::run, backward = Traits::backward;
  const int heads = int(op.shape.heads), channels = heads * taps, lane = int(threadIdx.x);
  const int width = int(op.out.width), plane = int(op.out.height) * width, all = int(op.shape.batch) * plane;
  T *const staged = shared_memory<T>(), *const staged_attn = staged + warp_lanes * channels;
  float* const sums = reinterpret_cast<float*>(staged + Traits::runs * warp_lanes * channels);
  for (int channel = lane; backward && channel < channels; channel += warp_lanes) sums[channel] = 0;

  for (int first = int(blockIdx.x) * warp_lanes; first < all; first += int(gridDim.x) * warp_lanes) {
    const int pixels = all - first < warp_lanes ? all - first : warp_lanes, count = pixels * channels;
    const int64_t begin = int64_t(first) * channels;
    if (run || !backward) copy_run(static_cast<const T*>(op.in.data) + begin, count, staged);
    if (run && backward) copy_run(static_cast<const T*>(op.attn.data) + begin, count, staged_attn);
    __syncwarp();
    if (lane < pixels) {
      const int pixel = first + lane, sample = pixel / plane, row = pixel % plane / width, column = pixel % width;
      for (int channel = 0; channel < channels; channel += taps) {
        const auto in_run = [&](T* data) { return Taps<T>{data + lane * channels + channel, 1}; };
        const auto of_map = [&](const MapView& map, T* data) {
          return run ? in_run(data) : Taps<T>{map.at<T>(sample, channel, row, column), map.channel_stride};
        };
        if constexpr (backward) {
          softmax_gradient<taps>(of_map(op.in, staged), of_map(op.attn, staged_attn), in_run(staged));
        } else {
          const T* bias = op.bias ? static_cast<const T*>(op.bias) + channel : nullptr;
          softmax_of<taps>(in_run(staged), bias, of_map(op.out, staged));
        }
      }
    }
    __syncwarp();
    if (run || backward) copy_run(staged, count, static_cast<T*>(op.out.data) + begin);
    if (backward && op.partial_bias) add_run(staged, pixels, channels, sums);
    __syncwarp();
  }
  for (int channel = lane; backward && op.partial_bias && channel < channels; channel += warp_lanes) {
    static_cast<float*>(op.partial_bias)[int64_t(blockIdx.x) * channels + channel] = sums[channel];
  }
}

}  // namespace elsa::hadamard_attention
