// The gather of ghost_head for stride 1 and a compile-time K: the forward, and the gradient of value.
//
// A block holds the ghost matrices of 32 channels, as float32, and the attention of a tile of 16 slots in shared
// memory; its lanes hold the sums and one row of the source in registers. Each tap costs two multiply-adds a channel;
// or one, where the matrix units do attention's part.
#pragma once

#include "ghost_head_band.cuh"

namespace elsa::cuda {

// Threads of a block. The attention of their slots has to fit beside the matrices: in 99 KiB on the smallest devices.
template <int K>
constexpr int gather_threads = K <= 11 ? 128 : 64;
template <int K>
constexpr int gather_slots = gather_threads<K> / slot_lanes;

template <typename T>
struct GatherArguments {
  Map<T> out;
  Map<const T> source, attn;
  Matrix<T> mul, add;
  Tiling tiling;
  int batch, head_channels, head_blocks;  // blocks of 32 channels in a head
};

// Whether the matrix units do attention's part: they cannot where each channel scales it by a factor of its own.
template <typename T, bool Mul>
constexpr bool gathers_band = matrix_units_take<T> && !Mul;

template <typename T, int K, bool Mul>
constexpr size_t gather_attn_bytes = gathers_band<T, Mul> ? sizeof(T) * band_elements<K, gather_slots<K>>
                                                          : sizeof(float) * K * K * attn_pitch(gather_slots<K>);
template <typename T, int K, bool Mul, bool Add>
constexpr size_t gather_shared_bytes =
    gather_attn_bytes<T, K, Mul> + sizeof(float) * K * K * (int(Mul) + int(Add)) * slot_channels;

// Add a row of taps to the lane's sums.
template <int K, bool Mul, bool Add>
__device__ void gather_taps(const float (&source)[slot_pixels + K - 1][lane_channels], const float* attn,
                            const float* mul, const float* add, float (&sum)[padded_pixels][lane_channels]) {
#pragma unroll
  for (int j = 0; j < K; ++j) {
    float map[2][lane_channels], scale[lane_channels], shift[lane_channels];
    load_shared(attn + j * attn_pitch(gather_slots<K>), map[0]);
    load_shared(attn + j * attn_pitch(gather_slots<K>) + lane_channels, map[1]);
    if constexpr (Mul) load_shared(mul + j * slot_channels, scale);
    if constexpr (Add) load_shared(add + j * slot_channels, shift);
#pragma unroll
    for (int p = 0; p < slot_pixels; ++p) {
#pragma unroll
      for (int c = 0; c < lane_channels; ++c) {
        float weight = map[p / lane_channels][p % lane_channels];
        if constexpr (Mul) weight *= scale[c];
        if constexpr (Add) weight += shift[c];
        sum[p][c] += weight * source[p + j][c];
      }
    }
  }
}

// Add a row of ghost_add's taps to the lane's sums.
template <typename T, int K>
__device__ void gather_add(const uint32_t (&source)[band_pairs<K>][lane_channels], const float* add,
                           float (&sum)[padded_pixels][lane_channels]) {
  float numbers[lane_channels][2 * band_pairs<K>];
#pragma unroll
  for (int p = 0; p < band_pairs<K>; ++p) {
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) unpack<T>(source[p][c], numbers[c][2 * p], numbers[c][2 * p + 1]);
  }
#pragma unroll
  for (int j = 0; j < K; ++j, add += slot_channels) {
    float shift[lane_channels];
    load_shared(add, shift);
#pragma unroll
    for (int p = 0; p < slot_pixels; ++p) {
#pragma unroll
      for (int c = 0; c < lane_channels; ++c) sum[p][c] += shift[c] * numbers[c][p + j];
    }
  }
}

template <typename T, int K, bool Vector, bool Mul, bool Add, bool Adjoint>
__global__ void __launch_bounds__(gather_threads<K>, Vector ? 3 : 2) ghost_head_gather(const GatherArguments<T> a) {
  constexpr int slots = gather_slots<K>, threads = gather_threads<K>, taps = K * K, radius = K / 2;
  constexpr bool band = gathers_band<T, Mul>;
  unsigned char* shared = shared_memory<unsigned char>();
  const auto attn = reinterpret_cast<std::conditional_t<band, T, float>*>(shared);
  float* mul = reinterpret_cast<float*>(shared + gather_attn_bytes<T, K, Mul>);
  float* add = mul + (Mul ? taps * slot_channels : 0);

  // In a band, see ghost_head_band.cuh. Elsewhere, the lanes of a slot lie side by side where channels do, and the
  // slots of a channel where they do not.
  const int lane = band ? threadIdx.x % 32 / warp_slots : Vector ? threadIdx.x % slot_lanes : threadIdx.x / slots;
  const int index = band     ? threadIdx.x / 32 * warp_slots + threadIdx.x % warp_slots
                    : Vector ? threadIdx.x / slot_lanes
                             : threadIdx.x % slots;
  const int head = blockIdx.y / a.head_blocks, first = blockIdx.y % a.head_blocks * slot_channels;
  const int64_t first_channel = int64_t(head) * a.head_channels + first;
  const int count = a.head_channels - first, lane_count = count - lane * lane_channels;
  const int64_t channel = first_channel + lane * lane_channels;
  const int64_t step = a.tiling.dilation * a.source.column_stride * int(sizeof(T));
  // What the lane gives of its slot's attention: a pixel's, or zeros.
  const bool gives = lane / 2 == int(threadIdx.x % warp_slots);
  const auto lane_band =
      attn + (gives ? index * band_pitch<K> + lane % 2 * band_sources<K> : K * slots * band_pitch<K>);
  const int band_row = gives ? slots * band_pitch<K> : 0;
  if constexpr (band) clear_band<T, K, slots, threads>(attn);

  int staged_sample = -1;
  for (int unit = blockIdx.x; unit < a.batch * a.tiling.tiles; unit += gridDim.x) {
    const int sample = unit / a.tiling.tiles, tile = unit % a.tiling.tiles;
    __syncthreads();
    if (staged_sample < 0 || (sample != staged_sample && (a.mul.batch_stride | a.add.batch_stride) != 0)) {
      if constexpr (Mul) stage_matrix<T, K, Adjoint, threads>(a.mul, sample, first_channel, count, mul);
      if constexpr (Add) stage_matrix<T, K, Adjoint, threads>(a.add, sample, first_channel, count, add);
      staged_sample = sample;
    }
    if constexpr (band) {
      stage_band<T, K, Adjoint, slots, threads / 32>(a.attn, a.tiling, sample, tile, head, attn);
    } else {
      stage_attn<T, K, K, (K <= 7 ? K : 1), Adjoint, slots, threads / 32>(a.attn, a.tiling, sample, tile, head, 0,
                                                                          attn);
    }
    __syncthreads();

    const Slot slot = a.tiling.slot(tile, index);
    const bool works = slot.inside && lane_count > 0;
    if (!band && !works) continue;
    const int left = slot.column - radius * a.tiling.dilation;
    const uint32_t inside = works ? columns_inside(slot, -radius) : 0;
    float sum[padded_pixels][lane_channels] = {};
#pragma unroll 1
    for (int i = 0; i < K; ++i) {
      const int row = slot.row + (i - radius) * a.tiling.dilation;
      const bool row_inside = within(row, a.tiling.height);
      const float *row_mul = mul + i * K * slot_channels + lane * lane_channels,
                  *row_add = add + i * K * slot_channels + lane * lane_channels;
      const T* from = a.source.at(sample, channel, row, left);
      if constexpr (band) {
        uint32_t source[band_pairs<K>][lane_channels];
        load_pairs<T, Vector, slot_pixels + K - 1>(from, step, a.source.channel_stride, lane_count,
                                                   row_inside ? inside : 0, source);
        add_band<T, K>(source, lane_band + i * band_row, sum);
        if constexpr (Add) gather_add<T, K>(source, row_add, sum);
      } else {
        if (!row_inside) continue;
        float source[slot_pixels + K - 1][lane_channels];
        load_row<T, Vector>(from, step, a.source.channel_stride, lane_count, inside, source);
        gather_taps<K, Mul, Add>(source, attn + i * K * attn_pitch(slots) + index * padded_pixels, row_mul, row_add,
                                 sum);
      }
    }
#pragma unroll
    for (int p = 0; works && p < slot_pixels; ++p) {
      const int column = slot.column + p * a.tiling.dilation;
      if (column < a.tiling.width) {
        store_channels<T, Vector>(sum[p], a.out.at(sample, channel, slot.row, column), a.out.channel_stride,
                                  lane_count);
      }
    }
  }
}

}  // namespace elsa::cuda
