// The gather of ghost_head on the matrix units, for 16-bit types without ghost_mul, stride 1 and K ≤ 9. There
//
//   out = Σ attn · source + Σ add · source,
//
// and for a row of taps and 8 neighbouring pixels, which need no more than 16 sources, both sums are products with a
// band matrix: out[pixel] = Σ_s source[s] · weight[s − pixel][pixel]. The band of attn serves 32 channels of a row of
// pixels, that of ghost_add 16 rows of pixels of a channel. The products are exact and the sums float32, as elsewhere.
//
// A block has the sources of a tile in shared memory, and the sums over ghost_add, with which those over attn begin.
#pragma once

#include "tile.cuh"
#include "../../../cuda/planes.cuh"

namespace elsa::ghost_head {

using namespace cuda;

template <typename T, int K>
constexpr bool planes_take = matrix_units_take<T> && K <= 9;

constexpr int plane_sums = plane_side * plane_side + 8;
constexpr int matrix_terms = 2;  // in T, of a float32 of ghost_add

template <typename T, int K, bool Add>
constexpr size_t planes_shared_bytes =
    slot_channels *
    (sizeof(T) * source_pitch<K> + (Add ? sizeof(float) * plane_sums + sizeof(T) * matrix_terms * K * K : 0));

template <typename T>
struct PlanesArguments {
  Map<T> out;
  Map<const T> source, attn;
  Matrix<T> add;
  Lattice lattice;
  int batch, head_channels, head_blocks;  // blocks of 32 channels in a head
};

// Copy ghost_add to shared memory, [term][plane][tap].
template <typename T, int K, bool Adjoint>
__device__ void stage_terms(const Matrix<T>& add, int sample, int64_t first_channel, int count, T* to) {
  constexpr int taps = K * K;
  for (int element = passing_thread(); element < slot_channels * taps; element += planes_threads) {
    const int channel = channel_of_plane(element / taps), tap = Adjoint ? taps - 1 - element % taps : element % taps;
    float rest = channel < count ? add.at(sample * add.batch_stride + (first_channel + channel) * taps + tap) : 0;
#pragma unroll
    for (int term = 0; term < matrix_terms; ++term) {
      const T part = rounded<T>(rest);
      to[term * slot_channels * taps + element] = part;
      rest -= widened(part);
    }
  }
}

// A lane's elements of a band matrix, 16 sources × 8 pixels: those of pixel lane / 4 for the sources 2t, 2t + 1, 2t + 8
// and 2t + 9, with t = lane % 4. Element k is that of the tap `first + offset(k)` of a row, if the row has it.
struct BandLane {
  int pixel, first;

  __device__ BandLane() : pixel(threadIdx.x % 32 / 4), first(threadIdx.x % 4 * 2 - pixel) {}

  __device__ static int offset(int k) { return k % 2 + k / 2 * 8; }

  // Where the lane's taps are, of those that lie `step` bytes apart.
  __device__ void locate(const void* taps, int64_t step, const char* (&elements)[4]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) elements[k] = static_cast<const char*>(taps) + (first + offset(k)) * step;
  }

  // The band of the elements of which the bit in `inside` is set.
  __device__ static void load(const char* const (&elements)[4], uint32_t inside, uint32_t (&band)[2]) {
    uint32_t numbers[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      numbers[k] = inside >> k & 1 ? *reinterpret_cast<const uint16_t*>(elements[k]) : 0;
    }
    band[0] = numbers[0] | numbers[1] << 16, band[1] = numbers[2] | numbers[3] << 16;
  }

  // The bits of those taps of which is_inside(tap) holds.
  template <int K, typename Function>
  __device__ uint32_t bits(const Function& is_inside) const {
    uint32_t inside = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int tap = first + offset(k);
      inside |= uint32_t(within(tap, K) && is_inside(tap)) << k;
    }
    return inside;
  }
};

// The sums over ghost_add, of 8 planes by each warp: products of the tile's rows with the bands.
template <typename T, int K>
__device__ void sum_over_add(const T* planes, const T* terms, int used_terms, float* sums) {
  const BandLane band_lane;
  const uint32_t inside = band_lane.bits<K>([](int) { return true; });
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int plane = threadIdx.x / 32; plane < slot_channels; plane += planes_warps) {
    float sum[groups][4] = {};
#pragma unroll
    for (int i = 0; i < K; ++i) {
      uint32_t source[groups][4];
#pragma unroll
      for (int group = 0; group < groups; ++group) {
        load_left<T>(
            planes + plane * source_pitch<K> + (i + lane % 16) * source_columns + (group + lane / 16) * group_pixels,
            source[group]);
      }
#pragma unroll
      for (int term = 0; term < matrix_terms; ++term) {
        if (term >= used_terms) break;
        uint32_t band[2];
        const char* elements[4];
        band_lane.locate(terms + ((term * slot_channels + plane) * K + i) * K, sizeof(T), elements);
        band_lane.load(elements, inside, band);
#pragma unroll
        for (int group = 0; group < groups; ++group) add_product<T>(source[group], band, sum[group]);
      }
    }
    float* to = sums + plane * plane_sums + band_lane.pixel * plane_side + lane % 4 * 2;
#pragma unroll
    for (int group = 0; group < groups; ++group, to += group_pixels) {
      to[0] = sum[group][0], to[1] = sum[group][1];
      to[8 * plane_side] = sum[group][2], to[8 * plane_side + 1] = sum[group][3];
    }
  }
}

// Add the sums over attn, of a group of a row of pixels, and write the results. `planes` and `sums` are at the group's.
template <typename T, int K, bool Vector, bool Add, bool Adjoint>
__device__ void finish_group(const PlanesArguments<T>& a, const LatticeTile& tile, int sample, int head,
                             int64_t first_channel, int count, int y, int group, const T* planes, const float* sums) {
  constexpr int radius = K / 2, halves = slot_channels / 16;
  const BandLane band_lane;
  const int lane = threadIdx.x % 32, d = a.lattice.dilation, x = group * group_pixels + band_lane.pixel;
  const int row = tile.row + y * d, column = tile.column + group * group_pixels * d;

  // Attention of the pixel itself, or in the adjoint that of the pixel at each tap, for the opposite tap.
  const int back = Adjoint ? radius * d : 0, last_tap = Adjoint ? K * K - 1 : 0;
  const T* attn = a.attn.at(sample, head * K * K + last_tap, row - back, column + band_lane.pixel * d - back);
  const int64_t next_tap = (Adjoint ? d * a.attn.column_stride : 0) + (Adjoint ? -1 : 1) * a.attn.channel_stride;
  const int64_t next_row = (Adjoint ? d * a.attn.row_stride : 0) + (Adjoint ? -K : K) * a.attn.channel_stride;
  const uint32_t inside = band_lane.bits<K>([&](int tap) { return tile.has_column(Adjoint ? x + tap - radius : x); });
  const char* elements[4];
  band_lane.locate(attn, next_tap * int(sizeof(T)), elements);
  uint32_t band[K][2];
#pragma unroll
  for (int i = 0; i < K; ++i) {
    band_lane.load(elements, !Adjoint || tile.has_row(y + i - radius) ? inside : 0, band[i]);
#pragma unroll
    for (int k = 0; k < 4; ++k) elements[k] += next_row * int(sizeof(T));
  }

  float sum[halves][4];
#pragma unroll
  for (int half = 0; half < halves; ++half) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int plane = half * 16 + k / 2 * 8 + band_lane.pixel;
      sum[half][k] = Add ? sums[plane * plane_sums + lane % 4 * 2 + k % 2] : 0;
    }
#pragma unroll
    for (int i = 0; i < K; ++i) {
      uint32_t source[4];
      load_left<T>(planes + (half * 16 + lane % 16) * source_pitch<K> + i * source_columns + lane / 16 * group_pixels,
                   source);
      add_product<T>(source, band[i], sum[half]);
    }
  }

  const int lane_first = band_lane.pixel * lane_channels;
#pragma unroll
  for (int p = 0; p < 2; ++p) {
    const int pixel = lane % 4 * 2 + p;
    const float result[lane_channels] = {sum[0][p], sum[0][2 + p], sum[1][p], sum[1][2 + p]};
    if (tile.has_column(group * group_pixels + pixel) && lane_first < count) {
      store_channels<T, Vector>(result, a.out.at(sample, first_channel + lane_first, row, column + pixel * d),
                                a.out.channel_stride, count - lane_first);
    }
  }
}

template <typename T, int K, bool Vector, bool Add, bool Adjoint>
__global__ void __launch_bounds__(planes_threads, 3) gather_planes_kernel(const PlanesArguments<T> a) {
  T* planes = shared_memory<T>();
  float* sums = reinterpret_cast<float*>(planes + slot_channels * source_pitch<K>);
  T* terms = reinterpret_cast<T*>(sums + slot_channels * plane_sums);
  const int warp = threadIdx.x / 32;
  const int head = blockIdx.y / a.head_blocks, first = blockIdx.y % a.head_blocks * slot_channels;
  const int64_t first_channel = int64_t(head) * a.head_channels + first;
  const int count = a.head_channels - first;

  int staged_sample = -1;
  for (int unit = blockIdx.x; unit < a.batch * a.lattice.tiles; unit += gridDim.x) {
    const int sample = unit / a.lattice.tiles;
    const LatticeTile tile(a.lattice, unit % a.lattice.tiles);
    __syncthreads();
    stage_sources<T, K, Vector>(a.source, a.lattice.dilation, tile, sample, first_channel, count, planes);
    if constexpr (Add) {
      if (staged_sample < 0 || (sample != staged_sample && a.add.batch_stride != 0)) {
        stage_terms<T, K, Adjoint>(a.add, sample, first_channel, count, terms);
        staged_sample = sample;
      }
      __syncthreads();
      sum_over_add<T, K>(planes, terms, a.add.is_float32 ? matrix_terms : 1, sums);
    }
    __syncthreads();
#pragma unroll 1
    for (int index = warp; index < plane_side * groups; index += planes_warps) {
      const int y = index / groups, group = index % groups;
      if (y >= tile.rows || group * group_pixels >= tile.columns) continue;
      finish_group<T, K, Vector, Add, Adjoint>(a, tile, sample, head, first_channel, count, y, group,
                                               planes + y * source_columns + group * group_pixels,
                                               sums + y * plane_side + group * group_pixels);
    }
  }
}

}  // namespace elsa::ghost_head
