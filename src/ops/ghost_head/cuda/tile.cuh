// What the kernels of ghost_head on the float32 units have in shared memory: a tile's attention, and the ghost
// matrices.
//
// Their traits say what a thread block has: T, K, threads, strips; `adjoint`; `attn_pitch`; and the kernel rows of attn
// that are staged together, `staged_rows`, of which `rows_in_flight` are loaded before the first is stored.
#pragma once

#include "../../../cuda/strips.cuh"
#include "matrix.cuh"
#include "passes.h"

namespace elsa::ghost_head {

using namespace cuda;

// The 7 pixels of a strip, and room for an eighth: two loads of 16 bytes give a lane the attention of its pixels.
constexpr int padded_pixels = 8;

// The numbers from tap to tap of a tile's attention in shared memory, [tap][strip][padded_pixels]. There is room after
// each tap, so that eight taps of a pixel, or four pixels of eight taps, lie in different banks.
constexpr int pitch_of_attn(int strips) { return strips * padded_pixels + padded_pixels; }

// Copy what each pixel of a tile multiplies its taps with, in the kernel rows from `first_row` on, to shared memory as
// float32: the pixel's own attention; in the adjoint that of the pixel at each tap, for the opposite tap.
template <typename Traits, typename T>
__device__ void stage_attn(const Map<const T>& attn, const StripTiling& tiling, int64_t sample, int tile, int64_t head,
                           int first_row, float* to) {
  constexpr int K = Traits::K, radius = K / 2;
  constexpr bool adjoint = Traits::adjoint;
  // Neighbouring lanes read neighbouring taps of a row of a strip's pixels. The lanes that are left over in the last
  // round repeat the last tap.
  constexpr int row_elements = strip_pixels * K, rounds = divide_up(row_elements, warp_lanes);
  const int64_t next_row = (adjoint ? tiling.dilation * attn.row_stride : 0) + (adjoint ? -K : K) * attn.channel_stride;
  const int thread = reread_thread_index();
#pragma unroll 1
  for (int index = thread / 32; index < Traits::strips; index += Traits::threads / 32) {
    const Strip strip = tiling.strip(tile, index);
#pragma unroll
    for (int round = 0; round < rounds; ++round) {
      const int own = round * 32 + thread % 32, element = own < row_elements ? own : row_elements - 1;
      const int pixel = element / K, j = element % K, tap = first_row * K + j;
      const int position = adjoint ? pixel + j - radius : pixel;
      const int first = strip.row + (adjoint ? first_row - radius : 0) * tiling.dilation;
      const bool inside = strip.inside && within(strip.position + position, strip.columns);
      const T* from = attn.at(sample, head * K * K + (adjoint ? K * K - 1 - tap : tap), first,
                              strip.column + position * tiling.dilation);
#pragma unroll(Traits::rows_in_flight)
      for (int r = 0; r < Traits::staged_rows; ++r, from += next_row) {
        const bool row_inside = first_row + r < K && (!adjoint || within(first + r * tiling.dilation, tiling.height));
        to[(r * K + j) * Traits::attn_pitch + index * padded_pixels + pixel] =
            widened(inside && row_inside ? *from : T());
      }
    }
  }
}

// Copy a slice of a ghost matrix to shared memory, [tap][channel]; zeros after the last of `count` channels.
template <typename Traits, typename T>
__device__ void stage_matrix(const Matrix<T>& matrix, int64_t sample, int64_t first_channel, int count, float* to) {
  constexpr int taps = Traits::K * Traits::K;
  for (int element = reread_thread_index(); element < taps * slice_channels; element += Traits::threads) {
    const int channel = element / taps, tap = element % taps;
    const int64_t from = sample * matrix.batch_stride + (first_channel + channel) * taps + tap;
    to[(Traits::adjoint ? taps - 1 - tap : tap) * slice_channels + channel] = channel < count ? matrix.at(from) : 0;
  }
}

}  // namespace elsa::ghost_head
