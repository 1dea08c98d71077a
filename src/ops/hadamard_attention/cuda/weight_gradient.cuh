// The gradients of the grouped convolution's weight and bias, for stride 1 and a compile-time K.
//
// Each warp of a thread block has a kernel row, or a part of one, and a quad of input channels of each group, for all
// tiles that the thread block visits: a lane's 16 sums for each tap stay in registers to the end.
#pragma once

#include "conv.cuh"

namespace elsa::hadamard_attention {

using namespace cuda;

template <typename Number, int KernelSize, bool Vector>
struct WeightGradientTraits {
  using T = Number;
  static constexpr int K = KernelSize;
  static constexpr bool vector = Vector;

  // The kernel rows of a thread block, one for each warp. A large kernel takes two thread blocks.
  static constexpr int rows = K <= 7 ? K : divide_up(K, 2), row_parts = divide_up(K, rows);
  static constexpr int threads = rows * warp_lanes;
  static constexpr int resident_blocks = 1;  // 255 registers a thread

  // The taps of a warp: at most 7, whose 112 sums fit into registers beside two rows of pixels, or 6 where loads of
  // single channels take registers for their addresses. The other taps of its row are other thread blocks'.
  static constexpr int tap_parts = divide_up(K, vector ? 7 : 6), row_taps = divide_up(K, tap_parts);

  static constexpr int strips = 16;  // of a tile
  static constexpr size_t shared_bytes = 0;
};

template <typename T>
struct WeightGradientArguments {
  ConvArguments<T> conv;
  float *partial_weight, *partial_bias;
};

template <typename Traits>
__global__ void __launch_bounds__(Traits::threads, Traits::resident_blocks)
    weight_gradient_kernel(const WeightGradientArguments<typename Traits::T> arguments) {
  using T = typename Traits::T;
  constexpr int K = Traits::K, taps = Traits::row_taps, radius = K / 2;
  const ConvArguments<T>& a = arguments.conv;
  const int lane = threadIdx.x % strip_lanes;
  const int channel = blockIdx.y * slice_channels + lane * lane_channels;
  const int i = blockIdx.z % Traits::row_parts * Traits::rows + threadIdx.x / 32;
  const int first_tap = blockIdx.z / Traits::row_parts % Traits::tap_parts * taps;
  const int quad = blockIdx.z / Traits::row_parts / Traits::tap_parts;
  const int in_channel = channel / a.group_width * a.group_width + quad * lane_channels;
  const int64_t grad_byte_stride = dilated_stride(a.grad, a.tiling.dilation);

  float sum[taps][lane_channels][lane_channels] = {}, bias[lane_channels] = {};
  for (int unit = blockIdx.x; unit < a.batch * a.tiling.tiles; unit += gridDim.x) {
    const int sample = unit / a.tiling.tiles;
#pragma unroll 1
    for (int base = 0; base < Traits::strips; base += warp_strips) {
      const Strip strip = a.tiling.strip(unit % a.tiling.tiles, base + threadIdx.x % 32 / strip_lanes);
      if (!strip.inside || channel >= a.channels || i >= K) continue;
      float grad[strip_pixels][lane_channels], source[strip_pixels + taps - 1][lane_channels];
      load_row<T, true>(a.grad.at(sample, channel, strip.row, strip.column), grad_byte_stride, 1, lane_channels,
                        columns_inside(strip, 0), grad);
      const int row = strip.row + (i - radius) * a.tiling.dilation;
      const int left = strip.column + (first_tap - radius) * a.tiling.dilation;
      const uint32_t inside = columns_inside(strip, first_tap - radius);
      load_products<T, Traits::vector>(a, sample, in_channel, row, left, within(row, a.tiling.height) ? inside : 0,
                                       source);
#pragma unroll
      for (int p = 0; p < strip_pixels; ++p) {
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

  const bool writes = threadIdx.x % 32 < strip_lanes && channel < a.channels && i < K;
  const int64_t partial = int64_t(blockIdx.x) * a.channels + channel;
#pragma unroll
  for (int o = 0; o < lane_channels; ++o) {
    const float total = sum_over_strips(bias[o]);
    if (writes && i == 0 && first_tap == 0 && quad == 0) arguments.partial_bias[partial + o] = total;
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) {
      float* to = arguments.partial_weight + ((partial + o) * a.group_width + quad * lane_channels + c) * K * K +
                  i * K + first_tap;
#pragma unroll
      for (int j = 0; j < taps; ++j) {
        const float product = sum_over_strips(sum[j][c][o]) * a.scale;
        if (writes && first_tap + j < K) to[j] = product;
      }
    }
  }
}

}  // namespace elsa::hadamard_attention
