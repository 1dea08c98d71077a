// The gradients of attn and of ghost_add on the matrix units, for 16-bit types without ghost_mul, stride 1 and K ≤ 7.
//
// For a row of taps and 8 neighbouring pixels the gradient of attn is a band of value · gradᵀ, a product over channels.
// That of ghost_add is, for each channel and a row of value, the product of the matrix of the row's shifts, 7 × 16
// pixels, and that of the rows of grad which the taps reach from there, 16 pixels × 7: all K² taps at once, summed up
// in registers over all rows of all tiles that the block visits.
#pragma once

#include "../../../cuda/planes.cuh"
#include "passes.h"

namespace elsa::ghost_head {

using namespace cuda;

template <typename T, int K>
constexpr bool planes_reduce_take = matrix_units_take<T> && K <= 7;

template <typename T>
struct PlanesReduceArguments {
  Map<const T> value, grad;
  Map<T> grad_attn;
  float* partial_add;
  Lattice lattice;
  int64_t channels;
  int group_samples, chunks, head_channels, head_blocks;
};

template <typename T, int K>
constexpr size_t planes_reduce_shared_bytes = sizeof(T) * slot_channels * (source_pitch<K> + plane_pitch);

constexpr int warp_planes = slot_channels / planes_warps;

// Add a tile's part to the gradient of ghost_add, of a warp's planes. sum[.] is its lane's of a matrix of K columns of
// taps × K rows of taps.
template <typename T, int K>
__device__ void add_shifts(const T* values, const T* grads, float (&sum)[warp_planes][4]) {
  const int warp = threadIdx.x / 32, shift = threadIdx.x % 32 / 4, pixel = threadIdx.x % 4 * 2;
  const uint32_t halves = shift % 2 == 0 ? 0x3210 : 0x5432;
  const auto words = [](const T* numbers) { return reinterpret_cast<const uint32_t*>(numbers); };
  const uint32_t* value = words(values + warp * warp_planes * source_pitch<K>) + (pixel + shift) / 2;
  const uint32_t* grad = words(grads + warp * warp_planes * plane_pitch) + (pixel - shift * plane_side) / 2;
#pragma unroll 1
  for (int row = 0; row < source_rows<K>; ++row, value += source_columns / 2, grad += plane_side / 2) {
    const bool inside = within(row - shift, plane_side);
#pragma unroll
    for (int plane = 0; plane < warp_planes; ++plane) {
      const uint32_t* from = value + plane * source_pitch<K> / 2;
      const uint32_t* rows = grad + plane * plane_pitch / 2;
      const uint32_t first = __byte_perm(from[0], from[1], halves), last = __byte_perm(from[4], from[5], halves);
      add_product<T>({first, 0, last, 0}, {inside ? rows[0] : 0, inside ? rows[4] : 0}, sum[plane]);
    }
  }
}

// The gradient of attn for a group of a row of pixels. `values` and `grads` are at the group's.
template <typename T, int K>
__device__ void write_grad_attn(const PlanesReduceArguments<T>& a, const LatticeTile& tile, int sample, int head, int y,
                                int group, const T* values, const T* grads) {
  constexpr int halves = slot_channels / 16;
  const int lane = threadIdx.x % 32, d = a.lattice.dilation, source = lane / 4, first_pixel = lane % 4 * 2;
  uint32_t right[4];
  load_transposed<T>(grads + lane * plane_pitch, right);

  // The lane's four elements of a product: for a pixel each, the tap that reaches `source` or the one 8 further right.
  const int64_t next_tap = a.grad_attn.channel_stride * int(sizeof(T));
  char* to[4];
  bool writes[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int pixel = first_pixel + k % 2, x = group * group_pixels + pixel, tap = source + k / 2 * 8 - pixel;
    writes[k] = within(tap, K) && tile.has_column(x);
    to[k] = reinterpret_cast<char*>(a.grad_attn.at(sample, head * K * K, tile.row + y * d, tile.column + x * d)) +
            tap * next_tap;
  }
#pragma unroll
  for (int i = 0; i < K; ++i) {
    float sum[4] = {};
#pragma unroll
    for (int half = 0; half < halves; ++half) {
      const int plane = half * 16 + lane / 16 * 8 + lane % 8;
      uint32_t left[4];
      load_transposed<T>(values + plane * source_pitch<K> + i * source_columns + lane / 8 % 2 * group_pixels, left);
      add_product<T>(left, {right[2 * half], right[2 * half + 1]}, sum);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (writes[k]) *reinterpret_cast<T*>(to[k]) = rounded<T>(sum[k]);
      to[k] += K * next_tap;
    }
  }
}

// Attn asks for a head of no more than 32 channels.
template <typename T, int K, bool Vector, bool Attn, bool Add>
__global__ void __launch_bounds__(planes_threads, 4) reduce_planes_kernel(const PlanesReduceArguments<T> a) {
  T* values = shared_memory<T>();
  T* grads = values + slot_channels * source_pitch<K>;
  const int warp = threadIdx.x / 32, group_of_samples = blockIdx.x / a.chunks, chunk = blockIdx.x % a.chunks;
  const int head = blockIdx.y / a.head_blocks, first = blockIdx.y % a.head_blocks * slot_channels;
  const int64_t first_channel = int64_t(head) * a.head_channels + first;
  const int count = a.head_channels - first;

  float sum[warp_planes][4] = {};
  for (int unit = chunk; unit < a.group_samples * a.lattice.tiles; unit += a.chunks) {
    const int sample = group_of_samples * a.group_samples + unit / a.lattice.tiles;
    const LatticeTile tile(a.lattice, unit % a.lattice.tiles);
    __syncthreads();
    stage_sources<T, K, Vector>(a.value, a.lattice.dilation, tile, sample, first_channel, count, values);
    stage_planes<T, plane_side, 0, plane_side, plane_pitch, Vector>(a.grad, a.lattice.dilation, tile, sample,
                                                                    first_channel, count, grads);
    __syncthreads();
    if constexpr (Add) add_shifts<T, K>(values, grads, sum);
    if constexpr (Attn) {
#pragma unroll 1
      for (int index = warp; index < plane_side * groups; index += planes_warps) {
        const int y = index / groups, group = index % groups;
        if (y >= tile.rows || group * group_pixels >= tile.columns) continue;
        write_grad_attn<T, K>(a, tile, sample, head, y, group, values + y * source_columns + group * group_pixels,
                              grads + y * plane_side + group * group_pixels);
      }
    }
  }
  if constexpr (Add) {
    const int column = threadIdx.x % 32 / 4, first_row = threadIdx.x % 4 * 2;
    const int64_t partial = int64_t(blockIdx.x) * a.channels + first_channel;
#pragma unroll
    for (int plane = 0; plane < warp_planes; ++plane) {
      const int channel = channel_of_plane(warp * warp_planes + plane);
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int row = first_row + k;
        if (channel < count && column < K && row < K) {
          a.partial_add[(partial + channel) * K * K + row * K + column] = sum[plane][k];
        }
      }
    }
  }
}

}  // namespace elsa::ghost_head
