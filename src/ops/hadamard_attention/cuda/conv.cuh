// The grouped convolution of hadamard_attention for stride 1 and a compile-time K, in one kernel with the steps around
// it.
//
// A lane works on 4 output channels × 7 pixels of a row. It multiplies query and key as it loads them; a row of
// products serves all taps of a kernel row. The weights of 4 input channels of each group lie in shared memory as
// float32: a lane loads 16 of them for 112 multiply-adds.
#pragma once

#include "../../../cuda/gelu.cuh"
#include "../../../cuda/strips.cuh"
#include "steps.h"

namespace elsa::hadamard_attention {

using namespace cuda;

// Thread blocks on a multiprocessor, whose 65536 registers they share: with 2, 3 or 4 of 128 threads a thread has 255,
// 168 or 128, and none spills to local memory. float32 rows take more than 16-bit ones, and loads of single channels
// more addresses.
template <typename T, int K, bool Vector>
constexpr int conv_resident_blocks() {
  if (!Vector || K > 7) return 2;
  return sizeof(T) == sizeof(float) ? 3 : 4;
}

template <typename Number, int KernelSize, bool Vector, ConvStep Step>
struct ConvTraits {
  using T = Number;
  static constexpr int K = KernelSize, taps = K * K;
  static constexpr bool vector = Vector, adjoint = Step == ConvStep::adjoint;
  static constexpr ConvStep step = Step;

  static constexpr int threads = 128, strips = threads / strip_lanes;
  static constexpr int resident_blocks = conv_resident_blocks<T, K, Vector>();

  // Shared memory: the weights, [tap][input channel][output channel], with room after each tap against bank conflicts.
  static constexpr int weight_pitch = lane_channels * slice_channels + lane_channels;
  static constexpr size_t shared_bytes = sizeof(float) * taps * weight_pitch;
};

template <typename T>
struct ConvArguments {
  Map<const T> query, key;
  Map<T> hidden, grad, grad_query, grad_key;
  const T *weight, *bias;
  float scale;
  StripTiling tiling;
  int batch, channels, group_width;
};

// The input channels of a group are taken four at a time: a quad. Copy the weights from a quad of each group to a slice
// of the output channels. In the adjoint the outputs are what the convolution's inputs were, and the taps are walked
// backwards.
template <typename Traits, typename T>
__device__ void stage_weights(const ConvArguments<T>& a, int first_channel, int quad, float* to) {
  constexpr int taps = Traits::taps;
  constexpr bool adjoint = Traits::adjoint;
  for (int element = reread_thread_index(); element < taps * lane_channels * slice_channels;
       element += Traits::threads) {
    const int tap = element % taps, in = element / taps % lane_channels, out = element / taps / lane_channels;
    const int channel = first_channel + out, other = quad * lane_channels + in;
    float weight = 0;
    if (channel < a.channels) {
      const int first_of_group = channel / a.group_width * a.group_width;
      const int row = adjoint ? first_of_group + other : channel, column = adjoint ? channel - first_of_group : other;
      weight = widened(a.weight[(int64_t(row) * a.group_width + column) * taps + (adjoint ? taps - 1 - tap : tap)]);
    }
    to[tap * Traits::weight_pitch + in * slice_channels + out] = adjoint ? weight : weight * a.scale;
  }
}

// Load query ⊙ key of a lane's channels of `Count` pixels that lie the dilation apart from (row, column) on.
template <typename T, bool Vector, int Count>
__device__ void load_products(const ConvArguments<T>& a, int sample, int channel, int row, int column, uint32_t inside,
                              float (&to)[Count][lane_channels]) {
  const int64_t query_byte_stride = dilated_stride(a.query, a.tiling.dilation);
  const int64_t key_byte_stride = dilated_stride(a.key, a.tiling.dilation);
  const int count = a.channels - channel;
  float key[Count][lane_channels];
  load_row<T, Vector>(a.query.at(sample, channel, row, column), query_byte_stride, a.query.channel_stride, count,
                      inside, to);
  load_row<T, Vector>(a.key.at(sample, channel, row, column), key_byte_stride, a.key.channel_stride, count, inside,
                      key);
#pragma unroll
  for (int k = 0; k < Count; ++k) {
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) to[k][c] *= key[k][c];
  }
}

// Add a row of taps to the lane's sums: what `Count` input channels contribute.
template <typename Traits, int Count>
__device__ void conv_taps(const float (&source)[strip_pixels + Traits::K - 1][Count], const float* weights,
                          float (&sum)[strip_pixels][lane_channels]) {
#pragma unroll
  for (int j = 0; j < Traits::K; ++j) {
    float weight[Count][lane_channels];
#pragma unroll
    for (int c = 0; c < Count; ++c) load_shared(weights + j * Traits::weight_pitch + c * slice_channels, weight[c]);
#pragma unroll
    for (int p = 0; p < strip_pixels; ++p) {
#pragma unroll
      for (int c = 0; c < Count; ++c) {
#pragma unroll
        for (int o = 0; o < lane_channels; ++o) sum[p][o] += weight[c][o] * source[p + j][c];
      }
    }
  }
}

// Convolve a row of a quad of input channels.
template <typename Traits, typename T>
__device__ void conv_row(const ConvArguments<T>& a, int sample, int channel, int row, int column, uint32_t inside,
                         const float* weights, float (&sum)[strip_pixels][lane_channels]) {
  constexpr int sources = strip_pixels + Traits::K - 1;
  if constexpr (Traits::adjoint) {
    const int64_t byte_stride = dilated_stride(a.grad, a.tiling.dilation);
    float source[sources][lane_channels];
    load_row<T, true>(a.grad.at(sample, channel, row, column), byte_stride, 1, lane_channels, inside, source);
    conv_taps<Traits>(source, weights, sum);
  } else if constexpr (Traits::vector) {
    float source[sources][lane_channels];
    load_products<T, true>(a, sample, channel, row, column, inside, source);
    conv_taps<Traits>(source, weights, sum);
  } else {
    // One channel after another: all four would need more registers than there are.
#pragma unroll 1
    for (int c = 0; c < lane_channels; ++c, weights += slice_channels) {
      const T* query = a.query.at(sample, channel + c, row, column);
      const T* key = a.key.at(sample, channel + c, row, column);
      float source[sources][1];
#pragma unroll
      for (int k = 0; k < sources; ++k) {
        const int64_t pixel = k * a.tiling.dilation;
        const bool load = inside >> k & 1;
        source[k][0] =
            load ? widened(query[pixel * a.query.column_stride]) * widened(key[pixel * a.key.column_stride]) : 0;
      }
      conv_taps<Traits>(source, weights, sum);
    }
  }
}

// Write GELU of the convolution's output, and in the step `recompute` the gradient times GELU's derivative.
template <typename T, ConvStep Step>
__device__ void finish_pixel(const ConvArguments<T>& a, int sample, int channel, int row, int column,
                             float (&sum)[lane_channels]) {
  float hidden[lane_channels], grad[1][lane_channels];
  T* to = a.grad.at(sample, channel, row, column);
  if constexpr (Step == ConvStep::recompute) load_row<T, true>(to, 0, 1, lane_channels, 1, grad);
#pragma unroll
  for (int c = 0; c < lane_channels; ++c) {
    const float before = sum[c] + (a.bias ? widened(a.bias[channel + c]) : 0);
    hidden[c] = gelu(before);
    if constexpr (Step == ConvStep::recompute) grad[0][c] *= gelu_derivative(before);
  }
  store_channels<T, true>(hidden, a.hidden.at(sample, channel, row, column), 1, lane_channels);
  if constexpr (Step == ConvStep::recompute) store_channels<T, true>(grad[0], to, 1, lane_channels);
}

// Write the gradients of query and key that are asked for, from that of their product.
template <typename T, bool Vector>
__device__ void finish_adjoint_pixel(const ConvArguments<T>& a, int sample, int channel, int row, int column,
                                     const float (&sum)[lane_channels]) {
  const int count = a.channels - channel;
  float query[1][lane_channels], key[1][lane_channels];
  load_row<T, Vector>(a.query.at(sample, channel, row, column), 0, a.query.channel_stride, count, 1, query);
  load_row<T, Vector>(a.key.at(sample, channel, row, column), 0, a.key.channel_stride, count, 1, key);
#pragma unroll
  for (int c = 0; c < lane_channels; ++c) {
    const float grad = sum[c] * a.scale, q = query[0][c];
    query[0][c] = grad * key[0][c];
    key[0][c] = grad * q;
  }
  if (a.grad_query.data) {
    store_channels<T, Vector>(query[0], a.grad_query.at(sample, channel, row, column), a.grad_query.channel_stride,
                              count);
  }
  if (a.grad_key.data) {
    store_channels<T, Vector>(key[0], a.grad_key.at(sample, channel, row, column), a.grad_key.channel_stride, count);
  }
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::threads, Traits::resident_blocks)
    conv_kernel(const ConvArguments<typename Traits::T> a) {
  using T = typename Traits::T;
  constexpr int K = Traits::K, radius = K / 2;
  float* weights = shared_memory<float>();
  const int lane = threadIdx.x % strip_lanes, index = threadIdx.x / strip_lanes;
  const int first_channel = blockIdx.y * slice_channels, channel = first_channel + lane * lane_channels;
  const int first_of_group = channel / a.group_width * a.group_width, quads = a.group_width / lane_channels;

  bool staged = false;
  for (int unit = blockIdx.x; unit < a.batch * a.tiling.tiles; unit += gridDim.x) {
    const int sample = unit / a.tiling.tiles;
    const Strip strip = a.tiling.strip(unit % a.tiling.tiles, index);
    const bool works = strip.inside && channel < a.channels;
    const int left = strip.column - radius * a.tiling.dilation;
    const uint32_t inside = columns_inside(strip, -radius);
    float sum[strip_pixels][lane_channels] = {};
    for (int quad = 0; quad < quads; ++quad) {
      if (!staged || quads > 1) {
        __syncthreads();
        stage_weights<Traits>(a, first_channel, quad, weights);
        __syncthreads();
        staged = true;
      }
#pragma unroll 1
      for (int i = 0; works && i < K; ++i) {
        const int row = strip.row + (i - radius) * a.tiling.dilation;
        if (!within(row, a.tiling.height)) continue;
        conv_row<Traits>(a, sample, first_of_group + quad * lane_channels, row, left, inside,
                         weights + i * K * Traits::weight_pitch + lane * lane_channels, sum);
      }
    }
#pragma unroll
    for (int p = 0; works && p < strip_pixels; ++p) {
      const int column = strip.column + p * a.tiling.dilation;
      if (column >= a.tiling.width) continue;
      if constexpr (Traits::adjoint) {
        finish_adjoint_pixel<T, Traits::vector>(a, sample, channel, strip.row, column, sum[p]);
      } else {
        finish_pixel<T, Traits::step>(a, sample, channel, strip.row, column, sum[p]);
      }
    }
  }
}

}  // namespace elsa::hadamard_attention
