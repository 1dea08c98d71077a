// The gather of ghost_head for stride 1 and a compile-time K: the forward, and the gradient of value.
//
// A block holds the ghost matrices of 32 channels and the attention of a tile of 16 slots in shared memory as float32;
// its lanes hold the sums and one row of the source in registers. Each tap costs two multiply-adds a channel.
#pragma once

#include "tile.cuh"

namespace elsa::ghost_head {

using namespace cuda;

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

template <int K, bool Mul, bool Add>
constexpr size_t gather_shared_floats() {
  return size_t(K * K) * (attn_pitch(gather_slots<K>) + (int(Mul) + int(Add)) * slot_channels);
}

// Add a row of taps to the lane's sums.
template <int K, bool Mul, bool Add>
__device__ void gather_taps(const float (&source)[slot_pixels + K - 1][lane_channels], const float* attn,
                            const float* mul, const float* add, float (&sum)[slot_pixels][lane_channels]) {
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

template <typename T, int K, bool Vector, bool Mul, bool Add, bool Adjoint>
__global__ void __launch_bounds__(gather_threads<K>, Vector ? 3 : 2) gather_kernel(const GatherArguments<T> a) {
  constexpr int taps = K * K, radius = K / 2;
  float* attn = shared_memory<float>();
  float* mul = attn + taps * attn_pitch(gather_slots<K>);
  float* add = mul + (Mul ? taps * slot_channels : 0);

  // Where channels lie side by side so do the lanes of a slot; elsewhere neighbouring lanes take neighbouring slots.
  const int lane = Vector ? threadIdx.x % slot_lanes : threadIdx.x / gather_slots<K>;
  const int index = Vector ? threadIdx.x / slot_lanes : threadIdx.x % gather_slots<K>;
  const int head = blockIdx.y / a.head_blocks, first = blockIdx.y % a.head_blocks * slot_channels;
  const int64_t first_channel = int64_t(head) * a.head_channels + first;
  const int count = a.head_channels - first, lane_count = count - lane * lane_channels;
  const int64_t step = a.tiling.dilation * a.source.column_stride * int(sizeof(T));

  int staged_sample = -1;
  for (int unit = blockIdx.x; unit < a.batch * a.tiling.tiles; unit += gridDim.x) {
    const int sample = unit / a.tiling.tiles, tile = unit % a.tiling.tiles;
    __syncthreads();
    if (staged_sample < 0 || (sample != staged_sample && (a.mul.batch_stride | a.add.batch_stride) != 0)) {
      if constexpr (Mul) stage_matrix<T, K, Adjoint, gather_threads<K>>(a.mul, sample, first_channel, count, mul);
      if constexpr (Add) stage_matrix<T, K, Adjoint, gather_threads<K>>(a.add, sample, first_channel, count, add);
      staged_sample = sample;
    }
    stage_attn<T, K, K, (K <= 7 ? K : 1), Adjoint, gather_slots<K>, gather_threads<K> / 32>(a.attn, a.tiling, sample,
                                                                                            tile, head, 0, attn);
    __syncthreads();

    const Slot slot = a.tiling.slot(tile, index);
    if (!slot.inside || lane_count <= 0) continue;
    const int left = slot.column - radius * a.tiling.dilation;
    const uint32_t inside = columns_inside(slot, -radius);
    const int64_t channel = first_channel + lane * lane_channels;
    float sum[slot_pixels][lane_channels] = {};
#pragma unroll 1
    for (int i = 0; i < K; ++i) {
      const int row = slot.row + (i - radius) * a.tiling.dilation;
      if (!within(row, a.tiling.height)) continue;
      float source[slot_pixels + K - 1][lane_channels];
      load_row<T, Vector>(a.source.at(sample, channel, row, left), step, a.source.channel_stride, lane_count, inside,
                          source);
      gather_taps<K, Mul, Add>(source, attn + i * K * attn_pitch(gather_slots<K>) + index * padded_pixels,
                               mul + i * K * slot_channels + lane * lane_channels,
                               add + i * K * slot_channels + lane * lane_channels, sum);
    }
#pragma unroll
    for (int p = 0; p < slot_pixels; ++p) {
      const int column = slot.column + p * a.tiling.dilation;
      if (column < a.tiling.width) {
        store_channels<T, Vector>(sum[p], a.out.at(sample, channel, slot.row, column), a.out.channel_stride,
                                  lane_count);
      }
    }
  }
}

}  // namespace elsa::ghost_head
