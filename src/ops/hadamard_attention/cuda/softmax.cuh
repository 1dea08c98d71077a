// The softmax over K² of hadamard_attention, and its gradient, with a compile-time K.
//
// A warp takes 32 neighbouring pixels, a lane the K² numbers of a head of one of them, which it has in registers: so
// sums need no exchange. The numbers come and go by shared memory, where all heads of a pixel lie side by side:
//
//   run[pixel · channels + head · K² + tap]
//
// So do the logits and their gradients in memory, and channels-last attention: 32 pixels are one run, which is copied
// in vectors of 16 bytes. Of other maps of attention each lane copies its own pixel: in contiguous NCHW the 32 lanes
// have neighbours.
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

  // Shared memory: the logits; or the gradients, the attention, and the sums for the bias.
  static constexpr int runs = Backward ? 2 : 1;
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

// The pixels of a warp, and where in a map that of a lane is.
struct SoftmaxPixels {
  int64_t first;
  int count, sample, row, column;

  __device__ SoftmaxPixels(const Softmax& op, int first_, int all) : first(first_) {
    count = all - first_ < warp_lanes ? all - first_ : warp_lanes;
    const int width = int(op.out.width), plane = int(op.out.height) * width, pixel = first_ + int(threadIdx.x);
    sample = pixel / plane, row = pixel % plane / width, column = pixel % width;
  }

  __device__ bool has_lane() const { return int(threadIdx.x) < count; }
};

// Copy the channels of the pixels from a map.
template <bool run, typename T>
__device__ void load_pixels(const MapView& map, const SoftmaxPixels& pixels, int channels, T* to) {
  if constexpr (run) {
    copy_run(static_cast<const T*>(map.data) + pixels.first * channels, pixels.count * channels, to);
  } else if (pixels.has_lane()) {
    const T* from = map.at<const T>(pixels.sample, 0, pixels.row, pixels.column);
    to += int(threadIdx.x) * channels;
#pragma unroll 8
    for (int k = 0; k < channels; ++k, from += map.channel_stride) to[k] = *from;
  }
}

// Copy them to a map.
template <bool run, typename T>
__device__ void store_pixels(const T* from, const SoftmaxPixels& pixels, int channels, const MapView& map) {
  if constexpr (run) {
    copy_run(from, pixels.count * channels, static_cast<T*>(map.data) + pixels.first * channels);
  } else if (pixels.has_lane()) {
    T* to = map.at<T>(pixels.sample, 0, pixels.row, pixels.column);
    from += int(threadIdx.x) * channels;
#pragma unroll 8
    for (int k = 0; k < channels; ++k, to += map.channel_stride) *to = from[k];
  }
}

// Put the softmax of logits + bias in the place of the logits. The largest of them leaves out what is not a number:
// that reaches all results by the sum.
template <int taps, typename T>
__device__ void softmax_of(T* logits, const T* bias) {
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
  for (int tap = 0; tap < taps; ++tap) logits[tap] = rounded<T>(numbers[tap] * reciprocal);
}

// Put the gradients of the logits in the place of those of attn.
template <int taps, typename T>
__device__ void softmax_gradient(T* grad, const T* attn) {
  float numbers[taps], sum = 0;
#pragma unroll
  for (int tap = 0; tap < taps; ++tap) {
    numbers[tap] = widened(grad[tap]);
    sum += numbers[tap] * widened(attn[tap]);
  }
#pragma unroll
  for (int tap = 0; tap < taps; ++tap) grad[tap] = rounded<T>(widened(attn[tap]) * (numbers[tap] - sum));
}

// A thread block is a warp. It takes every gridDim.x-th run, and has one partial sum of the bias's gradient.
template <typename Traits>
__global__ void __launch_bounds__(Traits::threads) softmax_kernel(const Softmax op) {
  using T = typename Traits::T;
  constexpr int taps = Traits::taps;
  constexpr bool run = Traits::run, backward = Traits::backward;
  const int channels = int(op.shape.heads) * taps, lane = int(threadIdx.x);
  const int all = int(op.shape.batch * op.out.height * op.out.width);
  T *const numbers = shared_memory<T>(), *const attn = numbers + warp_lanes * channels;
  float* const sums = reinterpret_cast<float*>(numbers + Traits::runs * warp_lanes * channels);
  for (int channel = lane; backward && channel < channels; channel += warp_lanes) sums[channel] = 0;

  for (int first = int(blockIdx.x) * warp_lanes; first < all; first += int(gridDim.x) * warp_lanes) {
    const SoftmaxPixels pixels(op, first, all);
    load_pixels<run || !backward>(op.in, pixels, channels, numbers);
    if constexpr (backward) load_pixels<run>(op.attn, pixels, channels, attn);
    __syncwarp();
    for (int channel = 0; pixels.has_lane() && channel < channels; channel += taps) {
      const int own = lane * channels + channel;
      if constexpr (backward) {
        softmax_gradient<taps>(numbers + own, attn + own);
      } else {
        softmax_of<taps>(numbers + own, op.bias ? static_cast<const T*>(op.bias) + channel : nullptr);
      }
    }
    __syncwarp();
    store_pixels<run || backward>(numbers, pixels, channels, op.out);
    if (backward && op.partial_bias) add_run(numbers, pixels.count, channels, sums);
    __syncwarp();
  }
  for (int channel = lane; backward && op.partial_bias && channel < channels; channel += warp_lanes) {
    static_cast<float*>(op.partial_bias)[int64_t(blockIdx.x) * channels + channel] = sums[channel];
  }
}

}  // namespace elsa::hadamard_attention
