// The gradients of attn and of ghost_add on the tensor cores, for 16-bit types without ghost_mul, stride 1 and K ≤ 7.
//
// For a row of taps and a fragment of 8 pixels the gradient of attn is a band of value · gradᵀ, a product over
// channels: the elements [source][pixel] for which source − pixel is a tap.
//
// That of ghost_add is, for each channel and row y of value, a product over the 16 pixels x of the row,
//
//   grad_add[i][j] += Σ_x value[y][x + j] · grad[y − i][x],
//
// of the matrix of the row's K shifts and that of the K rows of grad which the taps reach. It has all K² taps at once.
// They are summed up in registers over all rows of all tiles that the thread block visits.
#pragma once

#include "../../../cuda/planes.cuh"
#include "passes.h"

namespace elsa::ghost_head {

using namespace cuda;

template <typename Number, int KernelSize, bool Vector, bool Attn, bool Add>
struct ReducePlanesTraits {
  using T = Number;
  static constexpr int K = KernelSize;
  static constexpr bool vector = Vector, attn = Attn, add = Add;
  using Sources = SourcePlanes<K>;

  // A multiprocessor's 65536 registers are 128 a thread.
  static constexpr int threads = planes_threads, resident_blocks = 4;

  // Shared memory, in numbers of T: the planes of value, those of grad.
  static constexpr int grads_offset = slice_channels * Sources::pitch;
  static constexpr size_t shared_bytes = sizeof(T) * (grads_offset + slice_channels * TilePlanes::pitch);
};

// The shifts and the rows of the gradient of ghost_add are up to 8 each.
template <typename T, int K>
constexpr bool reduce_planes_take = tensor_cores_take<T> && K <= 7;

template <typename T>
struct ReducePlanesArguments {
  Map<const T> value, grad;
  Map<T> grad_attn;
  float* partial_add;
  PlaneTiling tiling;
  int64_t channels;
  int sum_samples, chunks, head_channels, head_slices;  // sum_samples: those that one sum goes over
};

constexpr int warp_planes = slice_channels / planes_warps;

// Add a tile's part to the gradient of ghost_add, for a warp's planes. `sum` are a lane's elements of the sums of
// add_product, [column of taps][row of taps], of which the upper 8 rows are not used.
template <typename Traits, typename T>
__device__ void add_shifts(const T* values, const T* grads, float (&sum)[warp_planes][4]) {
  using Sources = typename Traits::Sources;
  const int warp = threadIdx.x / 32, shift = threadIdx.x % 32 / 4, pixel = threadIdx.x % 4 * 2;
  // Pixels `pixel + shift` and the next: a word of the plane, or the upper half of one and the lower half of the next.
  const uint32_t selector = shift % 2 == 0 ? 0x3210 : 0x5432;
  const auto words = [](const T* numbers) { return reinterpret_cast<const uint32_t*>(numbers); };
  const uint32_t* value = words(values + warp * warp_planes * Sources::pitch) + (pixel + shift) / 2;
  const uint32_t* grad = words(grads + warp * warp_planes * TilePlanes::pitch) + (pixel - shift * plane_side) / 2;
#pragma unroll 1
  for (int row = 0; row < Sources::side; ++row, value += Sources::columns / 2, grad += plane_side / 2) {
    const bool inside = within(row - shift, plane_side);
#pragma unroll
    for (int plane = 0; plane < warp_planes; ++plane) {
      const uint32_t* from = value + plane * Sources::pitch / 2;
      const uint32_t* rows = grad + plane * TilePlanes::pitch / 2;
      const uint32_t first = __byte_perm(from[0], from[1], selector), last = __byte_perm(from[4], from[5], selector);
      add_product<T>({first, 0, last, 0}, {inside ? rows[0] : 0, inside ? rows[4] : 0}, sum[plane]);
    }
  }
}

// Write the gradient of attn for a fragment of row y of the tile. `values` and `grads` point to the fragment's first
// pixel.
template <typename Traits, typename T>
__device__ void write_grad_attn(const ReducePlanesArguments<T>& a, const PlaneTile& tile, int sample, int head, int y,
                                int fragment, const T* values, const T* grads) {
  using Sources = typename Traits::Sources;
  constexpr int K = Traits::K, halves = slice_channels / 16;
  const int lane = threadIdx.x % 32, d = a.tiling.dilation, source = lane / 4, first_pixel = lane % 4 * 2;
  uint32_t right[4];
  load_transposed<T>(grads + lane * TilePlanes::pitch, right);

  // The lane's four elements of a product: for a pixel each, the tap that reaches `source` or the one 8 further right.
  const int64_t next_tap = a.grad_attn.channel_stride * int(sizeof(T));
  char* to[4];
  bool writes[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int pixel = first_pixel + k % 2, x = fragment * fragment_pixels + pixel, tap = source + k / 2 * 8 - pixel;
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
      load_transposed<T>(values + plane * Sources::pitch + i * Sources::columns + lane / 8 % 2 * fragment_pixels, left);
      add_product<T>(left, {right[2 * half], right[2 * half + 1]}, sum);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (writes[k]) *reinterpret_cast<T*>(to[k]) = rounded<T>(sum[k]);
      to[k] += K * next_tap;
    }
  }
}

// With the gradient of attn a head must have no more channels than a slice.
template <typename Traits>
__global__ void __launch_bounds__(Traits::threads, Traits::resident_blocks)
    reduce_planes_kernel(const ReducePlanesArguments<typename Traits::T> a) {
  using T = typename Traits::T;
  using Sources = typename Traits::Sources;
  constexpr int K = Traits::K;
  constexpr bool vector = Traits::vector;
  T* values = shared_memory<T>();
  T* grads = values + Traits::grads_offset;
  const int warp = threadIdx.x / 32, sum_index = blockIdx.x / a.chunks, chunk = blockIdx.x % a.chunks;
  const int head = blockIdx.y / a.head_slices, first = blockIdx.y % a.head_slices * slice_channels;
  const int64_t first_channel = int64_t(head) * a.head_channels + first;
  const int count = a.head_channels - first;

  float sum[warp_planes][4] = {};
  for (int unit = chunk; unit < a.sum_samples * a.tiling.tiles; unit += a.chunks) {
    const int sample = sum_index * a.sum_samples + unit / a.tiling.tiles;
    const PlaneTile tile(a.tiling, unit % a.tiling.tiles);
    __syncthreads();
    stage_planes<Sources, vector>(a.value, a.tiling.dilation, tile, sample, first_channel, count, values);
    stage_planes<TilePlanes, vector>(a.grad, a.tiling.dilation, tile, sample, first_channel, count, grads);
    __syncthreads();
    if constexpr (Traits::add) add_shifts<Traits>(values, grads, sum);
    if constexpr (Traits::attn) {
#pragma unroll 1
      for (int index = warp; index < plane_side * row_fragments; index += planes_warps) {
        const int y = index / row_fragments, fragment = index % row_fragments;
        if (y >= tile.rows || fragment * fragment_pixels >= tile.columns) continue;
        write_grad_attn<Traits>(a, tile, sample, head, y, fragment,
                                values + y * Sources::columns + fragment * fragment_pixels,
                                grads + y * plane_side + fragment * fragment_pixels);
      }
    }
  }
  if constexpr (Traits::add) {
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
