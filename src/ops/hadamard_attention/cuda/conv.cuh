// The grouped convolution of hadamard_attention for stride 1 and a compile-time K, in one kernel with the steps around
// it.
//
// A lane works on 4 output channels × 7 pixels of a row. It multiplies query and key as it loads them; a row of
// products serves all taps of a kernel row. The weights of 4 input channels of each group lie in shared memory as
// float32: a lane loads 16 of them for 112 multiply-adds.
#pragma once

#include "steps.h"
#include "../../../cuda/gelu.cuh"
#include "../../../cuda/slots.cuh"

namespace elsa::hadamard_attention {

using namespace cuda;

constexpr int conv_threads = 128;
constexpr int conv_slots = conv_threads / slot_lanes;

template <typename T>
struct ConvArguments {
  Map<const T> query, key;
  Map<T> hidden, grad, grad_query, grad_key;
  const T *weight, *bias;
  float scale;
  Tiling tiling;
  int batch, channels, group_width;
};

// Shared memory's layout of the weights: [tap][input channel][output channel], with room after each tap against bank
// conflicts.
constexpr int weight_pitch = lane_channels * slot_channels + lane_channels;

template <int K>
constexpr size_t conv_shared_bytes = size_t(K * K) * weight_pitch * sizeof(float);

// Copy the weights from the `block`-th 4 input channels of each group to 32 output channels. In the adjoint the outputs
// are what the convolution's inputs were, and the taps are walked backwards.
template <typename T, int K, bool Adjoint>
__device__ void stage_weights(const ConvArguments<T>& a, int first_channel, int block, float* to) {
  constexpr int taps = K * K;
  for (int element = passing_thread(); element < taps * lane_channels * slot_channels; element += conv_threads) {
    const int tap = element % taps, in = element / taps % lane_channels, out = element / taps / lane_channels;
    const int channel = first_channel + out, other = block * lane_channels + in;
    float weight = 0;
    if (channel < a.channels) {
      const int first_of_group = channel / a.group_width * a.group_width;
      const int row = Adjoint ? first_of_group + other : channel, column = Adjoint ? channel - first_of_group : other;
      weight = widened(a.weight[(int64_t(row) * a.group_width + column) * taps + (Adjoint ? taps - 1 - tap : tap)]);
    }
    to[tap * weight_pitch + in * slot_channels + out] = Adjoint ? weight : weight * a.scale;
  }
}

// Load query ⊙ key of a lane's channels of `Count` pixels that lie the dilation apart from (row, column) on.
template <typename T, bool Vector, int Count>
__device__ void load_products(const ConvArguments<T>& a, int sample, int channel, int row, int column, uint32_t inside,
                              float (&to)[Count][lane_channels]) {
  const int64_t query_step = a.tiling.dilation * a.query.column_stride * int(sizeof(T));
  const int64_t key_step = a.tiling.dilation * a.key.column_stride * int(sizeof(T));
  const int count = a.channels - channel;
  float key[Count][lane_channels];
  load_row<T, Vector>(a.query.at(sample, channel, row, column), query_step, a.query.channel_stride, count, inside, to);
  load_row<T, Vector>(a.key.at(sample, channel, row, column), key_step, a.key.channel_stride, count, inside, key);
#pragma unroll
  for (int k = 0; k < Count; ++k) {
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) to[k][c] *= key[k][c];
  }
}

// Add a row of taps to the lane's sums: what `Count` input channels contribute.
template <int K, int Count>
__device__ void conv_taps(const float (&source)[slot_pixels + K - 1][Count], const float* weights,
                          float (&sum)[slot_pixels][lane_channels]) {
#pragma unroll
  for (int j = 0; j < K; ++j) {
    float weight[Count][lane_channels];
#pragma unroll
    for (int c = 0; c < Count; ++c) load_shared(weights + j * weight_pitch + c * slot_channels, weight[c]);
#pragma unroll
    for (int p = 0; p < slot_pixels; ++p) {
#pragma unroll
      for (int c = 0; c < Count; ++c) {
#pragma unroll
        for (int o = 0; o < lane_channels; ++o) sum[p][o] += weight[c][o] * source[p + j][c];
      }
    }
  }
}

// Convolve a row of 4 input channels.
template <typename T, int K, bool Vector, ConvStep Step>
__device__ void conv_row(const ConvArguments<T>& a, int sample, int channel, int row, int column, uint32_t inside,
                         const float* weights, float (&sum)[slot_pixels][lane_channels]) {
  constexpr int sources = slot_pixels + K - 1;
  if constexpr (Step == ConvStep::adjoint) {
    const int64_t step = a.tiling.dilation * a.grad.column_stride * int(sizeof(T));
    float source[sources][lane_channels];
    load_row<T, true>(a.grad.at(sample, channel, row, column), step, 1, lane_channels, inside, source);
    conv_taps<K>(source, weights, sum);
  } else if constexpr (Vector) {
    float source[sources][lane_channels];
    load_products<T, true>(a, sample, channel, row, column, inside, source);
    conv_taps<K>(source, weights, sum);
  } else {
    // One channel after another: all four would need more registers than there are.
#pragma unroll 1
    for (int c = 0; c < lane_channels; ++c, weights += slot_channels) {
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
      conv_taps<K>(source, weights, sum);
    }
  }
}

// GELU of the convolution's output, and in the second step the gradient times its derivative.
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

// The gradients of query and key that are asked for, from that of their product.
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

template <typename T, int K, bool Vector, ConvStep Step>
__global__ void __launch_bounds__(conv_threads, !Vector || K > 7 ? 2
                                                : sizeof(T) == 4 ? 3
                                                                 : 4) conv_kernel(const ConvArguments<T> a) {
  constexpr int radius = K / 2;
  float* weights = shared_memory<float>();
  const int lane = threadIdx.x % slot_lanes, index = threadIdx.x / slot_lanes;
  const int first_channel = blockIdx.y * slot_channels, channel = first_channel + lane * lane_channels;
  const int first_of_group = channel / a.group_width * a.group_width, blocks = a.group_width / lane_channels;

  bool staged = false;
  for (int unit = blockIdx.x; unit < a.batch * a.tiling.tiles; unit += gridDim.x) {
    const int sample = unit / a.tiling.tiles;
    const Slot slot = a.tiling.slot(unit % a.tiling.tiles, index);
    const bool works = slot.inside && channel < a.channels;
    const int left = slot.column - radius * a.tiling.dilation;
    const uint32_t inside = columns_inside(slot, -radius);
    float sum[slot_pixels][lane_channels] = {};
    for (int block = 0; block < blocks; ++block) {
      if (!staged || blocks > 1) {
        __syncthreads();
        stage_weights<T, K, Step == ConvStep::adjoint>(a, first_channel, block, weights);
        __syncthreads();
        staged = true;
      }
#pragma unroll 1
      for (int i = 0; works && i < K; ++i) {
        const int row = slot.row + (i - radius) * a.tiling.dilation;
        if (!within(row, a.tiling.height)) continue;
        conv_row<T, K, Vector, Step>(a, sample, first_of_group + block * lane_channels, row, left, inside,
                                     weights + i * K * weight_pitch + lane * lane_channels, sum);
      }
    }
#pragma unroll
    for (int p = 0; works && p < slot_pixels; ++p) {
      const int column = slot.column + p * a.tiling.dilation;
      if (column >= a.tiling.width) continue;
      if constexpr (Step == ConvStep::adjoint) {
        finish_adjoint_pixel<T, Vector>(a, sample, channel, slot.row, column, sum[p]);
      } else {
        finish_pixel<T, Step>(a, sample, channel, slot.row, column, sum[p]);
      }
    }
  }
}

}  // namespace elsa::hadamard_attention
