// The gradient of attn on the matrix units, for 16-bit types with channels side by side and without
// ghost_mul: for a row of taps of a slot it is a band
// of grad · valueᵀ, a sum over the channels of the head.
//
// A warp takes a slot. The rows of a product are pixels of value, its columns those of grad, and it sums 16 channels,
// of which a lane loads 4 at a time. Which channel comes when does not matter, as long as it does so on both sides.
#pragma once

#include "slots.cuh"

namespace elsa::cuda {

// A warp's room in shared memory, [slot_pixels][Rows · K taps], with room after each pixel against bank conflicts.
template <int K, int Rows>
constexpr int band_gradient_pitch = Rows * K + 3;
template <int K, int Rows>
constexpr int band_gradient_elements = slot_pixels * band_gradient_pitch<K, Rows>;

// The gradients of a slot for `Rows` rows of taps.
template <typename T, int K, int Rows>
__device__ void band_gradient(const Map<const T>& value, const Map<const T>& grad, int dilation, int sample,
                              int64_t head_channel, int head_channels, const Slot& slot, int first_row, T* to) {
  constexpr int radius = K / 2, sources = slot_pixels + K - 1, parts = (sources + 15) / 16, halves = 2;
  const int pixel = threadIdx.x % 32 / 4, lane = threadIdx.x % 4, lane_first = lane * halves * lane_channels;
  const int first = slot.row + (first_row - radius) * dilation, column = slot.column + pixel * dilation;
  const int64_t next_row = dilation * value.row_stride, next_8 = 8 * dilation * value.column_stride * int(sizeof(T));

  const bool grad_inside = slot.inside && pixel < slot_pixels && slot.position + pixel < slot.columns;
  uint32_t rows_inside = 0;
#pragma unroll
  for (int r = 0; r < Rows; ++r) {
    const bool inside = slot.inside && first_row + r < K && within(first + r * dilation, value.height);
    rows_inside |= uint32_t(inside) << r;
  }
  uint32_t value_inside[2 * parts];  // of the lane's pixels, which are 8 apart: in which rows
#pragma unroll
  for (int k = 0; k < 2 * parts; ++k) {
    const int source = pixel + 8 * k;
    const bool inside = source < sources && within(slot.position + source - radius, slot.columns);
    value_inside[k] = inside ? rows_inside : 0;
  }

  float sum[Rows][parts][4] = {};
  const T* grad_from = grad.at(sample, head_channel, slot.row, column) + lane_first;
  const T* value_from = value.at(sample, head_channel, first, column - radius * dilation) + lane_first;
#pragma unroll 1
  for (int count = head_channels - lane_first; count > -lane_first; count -= slot_channels) {
    Words<T> right[halves][1];
    uint32_t inside[halves][2 * parts];
#pragma unroll
    for (int half = 0; half < halves; ++half) {
      const int half_count = count - half * lane_channels;
      load_words<T, true>(grad_from + half * lane_channels, 0, 1, lane_channels, half_count > 0 && grad_inside,
                          right[half]);
#pragma unroll
      for (int k = 0; k < 2 * parts; ++k) inside[half][k] = half_count > 0 ? value_inside[k] : 0;
    }
    const T* row = value_from;
#pragma unroll
    for (int r = 0; r < Rows; ++r, row += next_row) {
#pragma unroll
      for (int half = 0; half < halves; ++half) {
        uint32_t row_inside = 0;
#pragma unroll
        for (int k = 0; k < 2 * parts; ++k) row_inside |= (inside[half][k] >> r & 1) << k;
        Words<T> left[2 * parts];
        load_words<T, true>(row + half * lane_channels, next_8, 1, lane_channels, row_inside, left);
#pragma unroll
        for (int part = 0; part < parts; ++part) {
          const Words<T>&upper = left[2 * part], &lower = left[2 * part + 1];
          add_product<T>({upper.data[0], lower.data[0], upper.data[1], lower.data[1]}, right[half][0].data,
                         sum[r][part]);
        }
      }
    }
    grad_from += slot_channels;
    value_from += slot_channels;
  }

#pragma unroll
  for (int part = 0; part < parts; ++part) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int p = 2 * lane + k % 2, j = 16 * part + pixel + k / 2 * 8 - p;
      if (p < slot_pixels && within(j, K)) {
#pragma unroll
        for (int r = 0; r < Rows; ++r) to[p * band_gradient_pitch<K, Rows> + r * K + j] = rounded<T>(sum[r][part][k]);
      }
    }
  }
}

// Write them: neighbouring lanes write neighbouring taps.
template <typename T, int K, int Rows>
__device__ void write_band_gradient(const Map<T>& attn, int dilation, int sample, int64_t head, const Slot& slot,
                                    int first_row, const T* from) {
  constexpr int taps = Rows * K, steps = (taps + 31) / 32;
  const int64_t next_pixel = dilation * attn.column_stride * int(sizeof(T));
#pragma unroll
  for (int step = 0; step < steps; ++step) {
    const int tap = step * 32 + passing_thread() % 32, first_tap = first_row * K;
    const int pixels = slot.inside && tap < taps && first_tap + tap < K * K ? slot.columns - slot.position : 0;
    char* to = reinterpret_cast<char*>(attn.at(sample, head * K * K + first_tap + tap, slot.row, slot.column));
#pragma unroll
    for (int p = 0; p < slot_pixels; ++p, to += next_pixel) {
      if (p < pixels) *reinterpret_cast<T*>(to) = from[p * band_gradient_pitch<K, Rows> + tap];
    }
  }
}

}  // namespace elsa::cuda
