// The reductions of ghost_head for stride 1 and a compile-time K: the gradients of attn, a sum over channels, and of
// the ghost matrices, sums over pixels.
//
// Each warp of a block has a kernel row of its own, for all slots of all tiles that the block visits: the sums over
// pixels stay in registers to the end. The sums over channels go through shared memory, so that neighbouring lanes
// write neighbouring taps.
#pragma once

#include "ghost_head_tile.cuh"

namespace elsa::cuda {

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

// Blocks of threads on a multiprocessor: as many as there are registers for.
template <int K, bool Vector, typename Want>
constexpr int reduce_blocks = (Want::mul || K >= 9 || !Vector ? 8 : 16) / reduce_rows<K>;

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

// The products of a row of taps with the lane's channels of a slot, added to what is wanted. `map` holds attn of the
// slot's first tap of the row; the gradient of attn takes its place.
template <int K, typename Want>
__device__ void reduce_taps(const float (&value)[slot_pixels + K - 1][lane_channels],
                            const float (&grad)[slot_pixels][lane_channels], float* map, bool first_block,
                            const float* scales, int lane, float (&sum_mul)[K][lane_channels],
                            float (&sum_add)[K][lane_channels]) {
#pragma unroll
  for (int j = 0; j < K; ++j, map += attn_pitch(reduce_slots), scales += slot_channels) {
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
    if constexpr (Want::attn) map[lane] = sum_over_lanes(sum_attn, lane) + (first_block ? 0 : map[lane]);
  }
}

// Write a row of taps of a tile's gradients of attn, `from` shared memory in the layout of stage_attn.
template <typename T, int K>
__device__ void unstage_attn_row(const Map<T>& attn, const Tiling& tiling, int64_t sample, int tile, int64_t head,
                                 int i, const float* from) {
  constexpr int row_elements = slot_pixels * K;
  for (int index = 0; index < reduce_slots; ++index) {
    const Slot slot = tiling.slot(tile, index);
    for (int element = passing_thread() % 32; slot.inside && element < row_elements; element += 32) {
      const int pixel = element / K, j = element % K, column = slot.column + pixel * tiling.dilation;
      if (column < tiling.width) {
        *attn.at(sample, (head * K + i) * K + j, slot.row, column) =
            rounded<T>(from[j * attn_pitch(reduce_slots) + index * padded_pixels + pixel]);
      }
    }
  }
}

// Write the sums over a warp's slots of the row `i` of the matrices' gradients.
template <int K>
__device__ void write_partial(float (&sum)[K][lane_channels], int i, int count, float* to) {
#pragma unroll
  for (int j = 0; j < K; ++j) {
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) {
      float total = sum[j][c];
#pragma unroll
      for (int slots = slot_lanes; slots < 32; slots *= 2) total += __shfl_xor_sync(0xffffffff, total, slots);
      if (threadIdx.x % 32 < slot_lanes && c < count) to[c * K * K + i * K + j] = total;
    }
  }
}

// With the gradient of attn, a block of threads takes all channels of a head, 32 after 32. Where these are several, it
// leaves the matrices' gradients to another launch, whose blocks of threads take 32 channels each.
template <typename T, int K, bool Vector, typename Want>
__global__ void __launch_bounds__(32 * reduce_rows<K>, reduce_blocks<K, Vector, Want>)
    ghost_head_reduce(const ReduceArguments<T> a) {
  constexpr int Rows = reduce_rows<K>, taps = K * K, radius = K / 2;
  float* map = shared_memory<float>();
  float* mul = map + (Want::attn || Want::mul ? Rows * K * attn_pitch(reduce_slots) : 0);

  const int warp = threadIdx.x / 32, lane = threadIdx.x % slot_lanes;
  const int first_row = blockIdx.z * Rows, i = first_row + warp;
  float* row_map = map + warp * K * attn_pitch(reduce_slots);
  const int group = blockIdx.x / a.chunks, chunk = blockIdx.x % a.chunks;
  const int head = Want::attn ? blockIdx.y : blockIdx.y / a.head_blocks;
  const int first_block = Want::attn ? 0 : blockIdx.y % a.head_blocks;
  const int last_block = Want::attn ? a.head_blocks : first_block + 1;
  const int64_t head_channel = int64_t(head) * a.head_channels;
  const int64_t value_step = a.tiling.dilation * a.value.column_stride * int(sizeof(T));
  const int64_t grad_step = a.tiling.dilation * a.grad.column_stride * int(sizeof(T));

  int staged_block = -1;
  float sum_mul[K][lane_channels] = {}, sum_add[K][lane_channels] = {};
  for (int unit = chunk; unit < a.group_samples * a.tiling.tiles; unit += a.chunks) {
    const int sample = group * a.group_samples + unit / a.tiling.tiles, tile = unit % a.tiling.tiles;
    for (int block = first_block; block < last_block; ++block) {
      const int first = block * slot_channels + lane * lane_channels, count = a.head_channels - first;
      __syncthreads();
      if (Want::scaled && staged_block != block) {
        stage_matrix<T, K, false, 32 * Rows>(a.mul, group, head_channel + block * slot_channels,
                                             a.head_channels - block * slot_channels, mul);
        staged_block = block;
      }
      if constexpr (Want::mul) {
        stage_attn<T, K, Rows, false, reduce_slots, Rows>(a.attn, a.tiling, sample, tile, head, first_row, map);
      }
      __syncthreads();
#pragma unroll 1
      for (int base = 0; base < reduce_slots; base += warp_slots) {
        const int index = base + threadIdx.x % 32 / slot_lanes;
        const Slot slot = a.tiling.slot(tile, index);
        const int row = slot.row + (i - radius) * a.tiling.dilation, left = slot.column - radius * a.tiling.dilation;
        const bool pixels = slot.inside && count > 0, source = pixels && i < K && within(row, a.tiling.height);
        float grad[slot_pixels][lane_channels], value[slot_pixels + K - 1][lane_channels];
        load_row<T, Vector>(
            a.grad.at(sample, head_channel + first, slot.row, slot.column), grad_step, a.grad.channel_stride, count,
            pixels ? columns_inside(slot, 0) : 0, grad);
        load_row<T, Vector>(
            a.value.at(sample, head_channel + first, row, left), value_step, a.value.channel_stride, count,
            source ? columns_inside(slot, -radius) : 0, value);
        reduce_taps<K, Want>(value, grad, row_map + index * padded_pixels, block == 0,
                             mul + (i < K ? i : 0) * K * slot_channels + lane * lane_channels, lane, sum_mul, sum_add);
      }
    }
    // A warp writes what it computed itself.
    __syncwarp();
    if (Want::attn && i < K) unstage_attn_row<T, K>(a.grad_attn, a.tiling, sample, tile, head, i, row_map);
  }
  const int first = first_block * slot_channels + lane * lane_channels, count = a.head_channels - first;
  const int64_t partial = (int64_t(blockIdx.x) * a.channels + head_channel + first) * taps;
  if (Want::mul && i < K) write_partial<K>(sum_mul, i, count, a.partial_mul + partial);
  if (Want::add && i < K) write_partial<K>(sum_add, i, count, a.partial_add + partial);
}

}  // namespace elsa::cuda
