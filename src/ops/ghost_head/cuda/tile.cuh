// What the kernels of ghost_head have in shared memory: a tile's attention, and the ghost matrices.
#pragma once

#include "../../../cuda/slots.cuh"
#include "passes.h"

namespace elsa::ghost_head {

using namespace cuda;

constexpr int padded_pixels = 8;

// Shared memory's layout of a tile's attention: [tap][slot][padded_pixels], and room after each tap so that eight
// taps of a pixel, or four pixels of eight taps, lie in different banks.
__device__ __host__ constexpr int attn_pitch(int slots) { return slots * padded_pixels + padded_pixels; }

// Call store(row, column, slot, pixel, attn) with what each pixel of the tile multiplies `Rows` rows of its taps with:
// its own attention; or, in the adjoint, that of the pixel at each tap, for the opposite tap. `Unroll` rows are on
// their way at once, for which there have to be registers.
template <typename T, int K, int Rows, int Unroll, bool Adjoint, int Slots, int Warps, typename Store>
__device__ void stage_attn(const Map<const T>& attn, const Tiling& tiling, int64_t sample, int tile, int64_t head,
                           int first_row, const Store& store) {
  // Neighbouring lanes read neighbouring taps of a row of a slot's pixels; what is left over repeats the last.
  constexpr int row_elements = slot_pixels * K, steps = (row_elements + 31) / 32, radius = K / 2;
  const int64_t next_row = (Adjoint ? tiling.dilation * attn.row_stride : 0) + (Adjoint ? -K : K) * attn.channel_stride;
  const int thread = passing_thread();
#pragma unroll 1
  for (int index = thread / 32; index < Slots; index += Warps) {
    const Slot slot = tiling.slot(tile, index);
#pragma unroll
    for (int step = 0; step < steps; ++step) {
      const int element = step * 32 + thread % 32 < row_elements ? step * 32 + thread % 32 : row_elements - 1;
      const int pixel = element / K, j = element % K, tap = first_row * K + j;
      const int position = Adjoint ? pixel + j - radius : pixel;
      const int first = slot.row + (Adjoint ? first_row - radius : 0) * tiling.dilation;
      const bool inside = slot.inside && within(slot.position + position, slot.columns);
      const T* from = attn.at(sample, head * K * K + (Adjoint ? K * K - 1 - tap : tap), first,
                              slot.column + position * tiling.dilation);
#pragma unroll(Unroll)
      for (int r = 0; r < Rows; ++r, from += next_row) {
        const bool row_inside = first_row + r < K && (!Adjoint || within(first + r * tiling.dilation, tiling.height));
        store(r, j, index, pixel, inside && row_inside ? *from : T());
      }
    }
  }
}

// Copy it to shared memory as float32.
template <typename T, int K, int Rows, int Unroll, bool Adjoint, int Slots, int Warps>
__device__ void stage_attn(const Map<const T>& attn, const Tiling& tiling, int64_t sample, int tile, int64_t head,
                           int first_row, float* to) {
  stage_attn<T, K, Rows, Unroll, Adjoint, Slots, Warps>(
      attn, tiling, sample, tile, head, first_row, [&](int row, int column, int slot, int pixel, T number) {
        to[(row * K + column) * attn_pitch(Slots) + slot * padded_pixels + pixel] = widened(number);
      });
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

}  // namespace elsa::ghost_head
