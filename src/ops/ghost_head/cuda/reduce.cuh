// The reductions of ghost_head for stride 1 and a compile-time K: the gradients of attn, a sum over channels, and of
// the ghost matrices, sums over pixels.
//
// Each warp of a block has a kernel row of its own, for all slots of all tiles that the block visits: the sums over
// pixels stay in registers to the end. The sums over channels go through shared memory, so that neighbouring lanes
// write neighbouring taps.
#pragma once

#include "tile.cuh"

namespace elsa::ghost_head {

using namespace cuda;

template <typename T>
struct ReduceArguments {
  Map<const T> value, attn, grad;
  Map<T> grad_attn;
  Matrix<T> mul;
  float *partial_mul, *partial_add;
  Tiling tiling;
  int64_t channels;
  int group_samples, chunks, head_channels, head_blocks;
};

// What a kernel computes: the gradient of attn, with ghost_mul as a factor or without, of ghost_mul, of ghost_add.
template <bool Attn, bool Scaled, bool Mul, bool Add>
struct Wanted {
  static constexpr bool attn = Attn, scaled = Scaled, mul = Mul, add = Add;
};

constexpr int reduce_slots = 16;

// Kernel rows of a block, hence warps; a large kernel takes two blocks.
template <int K>
constexpr int reduce_rows = K <= 7 ? K : (K + 1) / 2;
template <int K>
constexpr int reduce_parts = (K + reduce_rows<K> - 1) / reduce_rows<K>;

// Taps of a warp: all of its row, or half of them where the sums would not fit into registers.
template <typename T, int K, typename Want>
constexpr int reduce_row_taps = K <= (Want::mul || Want::scaled ? sizeof(T) == 4 ? 3 : 5 : 7) ? K : (K + 1) / 2;
template <typename T, int K, typename Want>
constexpr int reduce_tap_parts = (K + reduce_row_taps<T, K, Want> - 1) / reduce_row_taps<T, K, Want>;

// Blocks of threads on a multiprocessor: as many as there are registers for. The numerators are warps; 10 is two blocks
// for K = 5.
template <int K, bool Vector, typename Want>
constexpr int reduce_blocks = (Want::mul || !Vector || K > 9 ? K == 5 ? 10 : 8 : 16) / reduce_rows<K>;

template <int K, typename Want>
constexpr size_t reduce_shared_floats() {
  const int map = Want::attn || Want::mul ? attn_pitch(reduce_slots) : 0;
  return size_t(reduce_rows<K> * K) * map + (Want::scaled ? K * K * slot_channels : 0);
}

// The sums over a slot's lanes of eight numbers; lane k gets that of the k-th.
__device__ inline float sum_over_lanes(float (&number)[slot_lanes], int lane) {
#pragma unroll
  for (int half = slot_lanes / 2; half > 0; half /= 2) {
    const bool upper = lane & half;
#pragma unroll
    for (int k = 0; k < half; ++k) {
      const float kept = upper ? number[k + half] : number[k], given = upper ? number[k] : number[k + half];
      number[k] = kept + __shfl_xor_sync(0xffffffff, given, half);
    }
  }
  return number[0];
}

// The products of a warp's taps with the lane's channels of a slot, added to what is wanted. `map` holds attn of the
// slot's first of these taps; the gradient of attn takes its place.
template <int Taps, typename Want>
__device__ void reduce_taps(const float (&value)[slot_pixels + Taps - 1][lane_channels],
                            const float (&grad)[slot_pixels][lane_channels], int taps, float* map, bool first_block,
                            const float* scales, int lane, float (&sum_mul)[Taps][lane_channels],
                            float (&sum_add)[Taps][lane_channels]) {
#pragma unroll
  for (int j = 0; j < Taps; ++j, map += attn_pitch(reduce_slots), scales += slot_channels) {
    if (j >= taps) break;
    float attn[2][lane_channels], scale[lane_channels], sum_attn[padded_pixels] = {};
    if constexpr (Want::mul) {
      load_shared(map, attn[0]);
      load_shared(map + lane_channels, attn[1]);
    }
    if constexpr (Want::scaled) load_shared(scales, scale);
#pragma unroll
    for (int p = 0; p < slot_pixels; ++p) {
#pragma unroll
      for (int c = 0; c < lane_channels; ++c) {
        const float product = grad[p][c] * value[p + j][c];
        if constexpr (Want::scaled) {
          sum_attn[p] += scale[c] * product;
        } else if constexpr (Want::attn) {
          sum_attn[p] += grad[p][c] * value[p + j][c];
        }
        if constexpr (Want::mul) sum_mul[j][c] += attn[p / lane_channels][p % lane_channels] * product;
        if constexpr (Want::add) sum_add[j][c] += grad[p][c] * value[p + j][c];
      }
    }
    if constexpr (Want::attn) {
      const float sum = sum_over_lanes(sum_attn, lane);
      // Exchanges order no memory: another lane may not have read attn yet.
      if constexpr (Want::mul) __syncwarp();
      map[lane] = sum + (first_block ? 0 : map[lane]);
    }
  }
}

// Write a warp's taps of a tile's gradients of attn, `from` shared memory in the layout of stage_attn.
template <typename T, int Taps>
__device__ void unstage_attn_taps(const Map<T>& attn, const Tiling& tiling, int64_t sample, int tile, int64_t first_tap,
                                  int taps, const float* from) {
  for (int index = 0; index < reduce_slots; ++index) {
    const Slot slot = tiling.slot(tile, index);
    for (int element = passing_thread() % 32; slot.inside && element < slot_pixels * Taps; element += 32) {
      const int pixel = element / Taps, j = element % Taps;
      if (j < taps && slot.position + pixel < slot.columns) {
        *attn.at(sample, first_tap + j, slot.row, slot.column + pixel * tiling.dilation) =
            rounded<T>(from[j * attn_pitch(reduce_slots) + index * padded_pixels + pixel]);
      }
    }
  }
}

// Write the sums over a warp's slots.
template <int K, int Taps>
__device__ void write_partial(float (&sum)[Taps][lane_channels], int taps, int count, float* to) {
#pragma unroll
  for (int j = 0; j < Taps; ++j) {
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) {
      float total = sum[j][c];
#pragma unroll
      for (int slots = slot_lanes; slots < 32; slots *= 2) total += __shfl_xor_sync(0xffffffff, total, slots);
      if (threadIdx.x % 32 < slot_lanes && c < count && j < taps) to[c * K * K + j] = total;
    }
  }
}

// With the gradient of attn, a block of threads takes all channels of a head, 32 after 32. Where these are several, it
// leaves the matrices' gradients to another launch, whose blocks of threads take 32 channels each.
template <typename T, int K, bool Vector, typename Want>
__global__ void __launch_bounds__(32 * reduce_rows<K>, reduce_blocks<K, Vector, Want>)
    reduce_kernel(const ReduceArguments<T> a) {
  constexpr int Rows = reduce_rows<K>, Taps = reduce_row_taps<T, K, Want>, radius = K / 2;
  float* map = shared_memory<float>();
  float* mul = map + (Want::attn || Want::mul ? Rows * K * attn_pitch(reduce_slots) : 0);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % slot_lanes;
  const int first_row = blockIdx.z % reduce_parts<K> * Rows, i = first_row + warp;
  const int first_tap = blockIdx.z / reduce_parts<K> * Taps;
  constexpr bool whole = reduce_parts<K> * reduce_tap_parts<T, K, Want> == 1;
  const int taps = whole ? Taps : i >= K ? 0 : K - first_tap < Taps ? K - first_tap : Taps;
  float* warp_map = map + (warp * K + first_tap) * attn_pitch(reduce_slots);
  const int group = blockIdx.x / a.chunks, chunk = blockIdx.x % a.chunks;
  const int head = Want::attn ? blockIdx.y : blockIdx.y / a.head_blocks;
  const int first_block = Want::attn ? 0 : blockIdx.y % a.head_blocks;
  const int last_block = Want::attn ? a.head_blocks : first_block + 1;
  const int head_channel = head * a.head_channels;
  const int64_t value_step = a.tiling.dilation * a.value.column_stride * int(sizeof(T));
  const int64_t grad_step = a.tiling.dilation * a.grad.column_stride * int(sizeof(T));

  int staged_block = -1;
  float sum_mul[Taps][lane_channels] = {}, sum_add[Taps][lane_channels] = {};
  for (int unit = chunk; unit < a.group_samples * a.tiling.tiles; unit += a.chunks) {
    const int sample = group * a.group_samples + unit / a.tiling.tiles, tile = unit % a.tiling.tiles;
    for (int block = first_block; block < last_block; ++block) {
      const int first = block * slot_channels + lane * lane_channels, count = a.head_channels - first;
      if constexpr (Want::scaled || Want::mul) __syncthreads();
      if (Want::scaled && staged_block != block) {
        stage_matrix<T, K, false, 32 * Rows>(a.mul, group, head_channel + block * slot_channels,
                                             a.head_channels - block * slot_channels, mul);
        staged_block = block;
      }
      if constexpr (Want::mul) {
        stage_attn<T, K, Rows, 2, false, reduce_slots, Rows>(a.attn, a.tiling, sample, tile, head, first_row, map);
      }
      if constexpr (Want::scaled || Want::mul) __syncthreads();
#pragma unroll 1
      for (int base = 0; base < reduce_slots; base += warp_slots) {
        const int index = base + threadIdx.x % 32 / slot_lanes;
        const Slot slot = a.tiling.slot(tile, index);
        const int row = slot.row + (i - radius) * a.tiling.dilation;
        const int left = slot.column + (first_tap - radius) * a.tiling.dilation;
        const bool row_inside = count > 0 && i < K && within(row, a.tiling.height);
        float grad[slot_pixels][lane_channels], value[slot_pixels + Taps - 1][lane_channels];
        load_row<T, Vector>(a.grad.at(sample, head_channel + first, slot.row, slot.column), grad_step,
                            a.grad.channel_stride, count, count > 0 ? columns_inside(slot, 0) : 0, grad);
        load_row<T, Vector>(a.value.at(sample, head_channel + first, row, left), value_step, a.value.channel_stride,
                            count, row_inside ? columns_inside(slot, first_tap - radius) : 0, value);
        const float* scales = mul + ((i < K ? i : 0) * K + first_tap) * slot_channels + lane * lane_channels;
        reduce_taps<Taps, Want>(value, grad, taps, warp_map + index * padded_pixels, block == 0, scales, lane, sum_mul,
                                sum_add);
      }
    }
    if constexpr (Want::attn) {
      // A warp writes what it computed itself.
      __syncwarp();
      unstage_attn_taps<T, Taps>(a.grad_attn, a.tiling, sample, tile, (int64_t(head) * K + i) * K + first_tap, taps,
                                 warp_map);
      __syncwarp();
    }
  }
  const int first = first_block * slot_channels + lane * lane_channels, count = a.head_channels - first;
  const int64_t partial = (int64_t(blockIdx.x) * a.channels + head_channel + first) * K * K + i * K + first_tap;
  if constexpr (Want::mul) write_partial<K>(sum_mul, taps, count, a.partial_mul + partial);
  if constexpr (Want::add) write_partial<K>(sum_add, taps, count, a.partial_add + partial);
}

}  // namespace elsa::ghost_head
