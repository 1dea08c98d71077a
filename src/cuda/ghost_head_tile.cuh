// What the kernels of ghost_head have in shared memory: a tile's attention, and the ghost matrices.
#pragma once

#include "slots.cuh"

namespace elsa::cuda {

constexpr int padded_pixels = 8;

// Shared memory's layout of a tile's attention: [tap][slot][padded_pixels], and room after each tap so that eight
// taps of a pixel, or four pixels of eight taps, lie in different banks.
__device__ __host__ constexpr int attn_pitch(int slots) { return slots * padded_pixels + padded_pixels; }

// Copy to shared memory what each pixel of the tile multiplies `Rows` rows of its taps with: its own attention; or, in
// the adjoint, that of the pixel at each tap, for the opposite tap.
template <typename T, int K, int Rows, bool Adjoint, int Slots, int Warps>
__device__ void stage_attn(const Map<const T>& attn, const Tiling& tiling, int64_t sample, int tile, int64_t head,
                           int first_row, float* to) {
  constexpr int row_elements = slot_pixels * K, steps = (row_elements + 31) / 32;
  const int thread = passing_thread(), warp = thread / 32, lane = thread % 32;
  for (int index = warp; index < Slots; index += Warps) {
    const Slot slot = tiling.slot(tile, index);
    const T* pixels = attn.at(sample, head * K * K, slot.inside ? slot.row : 0, slot.inside ? slot.column : 0);
    // A row of taps of the slot's pixels at a time: neighbouring lanes read neighbouring taps.
#pragma unroll(K <= 7 ? Rows : 1)
    for (int r = 0; r < Rows; ++r) {
      const int i = first_row + r, row = (Adjoint ? i - K / 2 : 0) * tiling.dilation;
      const bool row_inside = slot.inside && i < K && within(slot.row + row, tiling.height);
#pragma unroll
      for (int step = 0; step < steps; ++step) {
        const int element = step * 32 + lane, pixel = element / K, j = element % K;
        const int column = (Adjoint ? pixel + j - K / 2 : pixel) * tiling.dilation;
        const int tap = Adjoint ? (K - 1 - i) * K + K - 1 - j : i * K + j;
        if (element < row_elements) {
          const bool inside = row_inside && within(slot.column + column, tiling.width);
          const T* from = pixels + row * attn.row_stride + column * attn.column_stride + tap * attn.channel_stride;
          to[(r * K + j) * attn_pitch(Slots) + index * padded_pixels + pixel] = inside ? widened(*from) : 0;
        }
      }
    }
  }
}

// A ghost matrix on the device: float32 or of the maps' type.
template <typename T>
struct Matrix {
  const void* data;
  bool is_float32;
  int64_t batch_stride;

  explicit Matrix(const MatrixView& view)
      : data(view.data), is_float32(view.dtype == DType::float32), batch_stride(view.batch_stride) {}

  __device__ float at(int64_t index) const {
    return is_float32 ? static_cast<const float*>(data)[index] : widened(static_cast<const T*>(data)[index]);
  }
};

// Copy 32 channels of a ghost matrix to shared memory, [tap][channel]; zeros after the last of `count`.
template <typename T, int K, bool Adjoint, int Threads>
__device__ void stage_matrix(const Matrix<T>& matrix, int64_t sample, int64_t first_channel, int count, float* to) {
  constexpr int taps = K * K;
  for (int element = passing_thread(); element < taps * slot_channels; element += Threads) {
    const int channel = element / taps, tap = element % taps;
    const int64_t from = sample * matrix.batch_stride + (first_channel + channel) * taps + tap;
    to[(Adjoint ? taps - 1 - tap : tap) * slot_channels + channel] = channel < count ? matrix.at(from) : 0;
  }
}

}  // namespace elsa::cuda
