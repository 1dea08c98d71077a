// The gradients of the grouped convolution's weight and bias, for stride 1 and a compile-time K.
//
// Each warp of a block has a kernel row, or half of one, and 4 input channels of each group, for all tiles that the
// block visits: a lane's 16 · K sums stay in registers to the end.
#pragma once

#include "conv.cuh"

namespace elsa::hadamard_attention {

using namespace cuda;

template <typename T>
struct WeightGradientArguments {
  ConvArguments<T> conv;
  float *partial_weight, *partial_bias;
};

// Taps of a warp, and the warps of a block. The taps of a large kernel's row go to several warps, its rows to two
// blocks.
template <int K, bool Vector>
constexpr int weight_parts = (K + (Vector ? 6 : 5)) / (Vector ? 7 : 6);
template <int K, bool Vector>
constexpr int weight_taps = (K + weight_parts<K, Vector> - 1) / weight_parts<K, Vector>;
template <int K>
constexpr int weight_rows = K <= 7 ? K : (K + 1) / 2;
template <int K>
constexpr int weight_row_parts = (K + weight_rows<K> - 1) / weight_rows<K>;

// The sum over a warp's slots; the lanes of the first slot get it.
__device__ inline float sum_over_slots(float number) {
#pragma unroll
  for (int slots = slot_lanes; slots < 32; slots *= 2) number += __shfl_xor_sync(0xffffffff, number, slots);
  return number;
}

template <typename T, int K, bool Vector>
__global__ void __launch_bounds__(32 * weight_rows<K>, 1)
    weight_gradient_kernel(const WeightGradientArguments<T> arguments) {
  constexpr int taps = weight_taps<K, Vector>, radius = K / 2;
  const ConvArguments<T>& a = arguments.conv;
  const int lane = threadIdx.x % slot_lanes;
  const int channel = blockIdx.y * slot_channels + lane * lane_channels;
  const int i = blockIdx.z % weight_row_parts<K> * weight_rows<K> + threadIdx.x / 32;
  const int first_tap = blockIdx.z / weight_row_parts<K> % weight_parts<K, Vector> * taps;
  const int block = blockIdx.z / weight_row_parts<K> / weight_parts<K, Vector>;
  const int in_channel = channel / a.group_width * a.group_width + block * lane_channels;
  const int64_t grad_step = a.tiling.dilation * a.grad.column_stride * int(sizeof(T));

  float sum[taps][lane_channels][lane_channels] = {}, bias[lane_channels] = {};
  for (int unit = blockIdx.x; unit < a.batch * a.tiling.tiles; unit += gridDim.x) {
    const int sample = unit / a.tiling.tiles;
#pragma unroll 1
    for (int base = 0; base < conv_slots; base += warp_slots) {
      const Slot slot = a.tiling.slot(unit % a.tiling.tiles, base + threadIdx.x % 32 / slot_lanes);
      if (!slot.inside || channel >= a.channels || i >= K) continue;
      float grad[slot_pixels][lane_channels], source[slot_pixels + taps - 1][lane_channels];
      load_row<T, true>(a.grad.at(sample, channel, slot.row, slot.column), grad_step, 1, lane_channels,
                        columns_inside(slot, 0), grad);
      const int row = slot.row + (i - radius) * a.tiling.dilation;
      const int left = slot.column + (first_tap - radius) * a.tiling.dilation;
      const uint32_t inside = columns_inside(slot, first_tap - radius);
      load_products<T, Vector>(a, sample, in_channel, row, left, within(row, a.tiling.height) ? inside : 0, source);
#pragma unroll
      for (int p = 0; p < slot_pixels; ++p) {
#pragma unroll
        for (int o = 0; o < lane_channels; ++o) {
          bias[o] += grad[p][o];
#pragma unroll
          for (int j = 0; j < taps; ++j) {
#pragma unroll
            for (int c = 0; c < lane_channels; ++c) sum[j][c][o] += grad[p][o] * source[p + j][c];
          }
        }
      }
    }
  }

  const bool writes = threadIdx.x % 32 < slot_lanes && channel < a.channels && i < K;
  const int64_t partial = int64_t(blockIdx.x) * a.channels + channel;
#pragma unroll
  for (int o = 0; o < lane_channels; ++o) {
    const float total = sum_over_slots(bias[o]);
    if (writes && i == 0 && first_tap == 0 && block == 0) arguments.partial_bias[partial + o] = total;
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) {
      float* to = arguments.partial_weight + ((partial + o) * a.group_width + block * lane_channels + c) * K * K +
                  i * K + first_tap;
#pragma unroll
      for (int j = 0; j < taps; ++j) {
        const float product = sum_over_slots(sum[j][c][o]) * a.scale;
        if (writes && first_tap + j < K) to[j] = product;
      }
    }
  }
}

}  // namespace elsa::hadamard_attention
