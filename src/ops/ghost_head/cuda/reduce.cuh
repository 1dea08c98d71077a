// The reductions of ghost_head for stride 1 and a compile-time K: the gradients of attn, a sum over channels, and of
// the ghost matrices, sums over pixels.
//
// Each warp of a thread block has a kernel row of its own, for all strips of all tiles that the thread block visits:
// the sums over pixels stay in registers to the end. The sums over channels go through shared memory, so that
// neighbouring lanes write neighbouring taps.
#pragma once

#include "tile.cuh"

namespace elsa::ghost_head {

using namespace cuda;

// What a kernel computes: the gradient of attn, with ghost_mul as a factor or without, of ghost_mul, of ghost_add.
template <bool Attn, bool Scaled, bool Mul, bool Add>
struct Wanted {
  static constexpr bool attn = Attn, scaled = Scaled, mul = Mul, add = Add;
};

// The most taps of a kernel row whose sums fit into a lane's registers.
template <typename T, typename Want>
constexpr int reduce_most_taps() {
  if (!Want::mul && !Want::scaled) return 7;
  return sizeof(T) == sizeof(float) ? 3 : 5;
}

// The warps of a multiprocessor, which share its 65536 registers: 16 have 128 registers a thread, 10 have 204, 8 have
// as many as a thread can have, 255. For K = 5, 10 are two thread blocks, where 8 would be one.
template <int K, bool Vector, typename Want>
constexpr int reduce_resident_warps() {
  if (!Want::mul && Vector && K <= 9) return 16;
  return K == 5 ? 10 : 8;
}

template <typename Number, int KernelSize, bool Vector, typename Wants>
struct ReduceTraits {
  using T = Number;
  using Want = Wants;
  static constexpr int K = KernelSize;
  static constexpr bool vector = Vector, adjoint = false;

  // The kernel rows of a thread block, one for each warp. A large kernel takes two thread blocks.
  static constexpr int rows = K <= 7 ? K : divide_up(K, 2), row_parts = divide_up(K, rows);
  static constexpr int threads = rows * warp_lanes;

  // The taps of a warp: all of its row, or half of them. The other half is another thread block's.
  static constexpr int row_taps = K <= reduce_most_taps<T, Want>() ? K : divide_up(K, 2);
  static constexpr int tap_parts = divide_up(K, row_taps);

  static constexpr int resident_blocks = reduce_resident_warps<K, Vector, Want>() / rows;
  static constexpr int strips = 16;

  // Two rows: the registers hold sums while attention is staged.
  static constexpr int staged_rows = rows, rows_in_flight = 2;

  // Shared memory, in floats: attention or its gradient, mul.
  static constexpr int attn_pitch = pitch_of_attn(strips);
  static constexpr int mul_offset = Want::attn || Want::mul ? rows * K * attn_pitch : 0;
  static constexpr size_t shared_bytes = sizeof(float) * (mul_offset + (Want::scaled ? K * K * slice_channels : 0));
};

template <typename T>
struct ReduceArguments {
  Map<const T> value, attn, grad;
  Map<T> grad_attn;
  Matrix<T> mul;
  float *partial_mul, *partial_add;
  StripTiling tiling;
  int64_t channels;
  int sum_samples, chunks, head_channels, head_slices;  // sum_samples: those that one sum goes over
};

// Lane k of a strip gets the sum over the strip's lanes of their k-th numbers. In three rounds each lane exchanges half
// of the numbers that it still has for the other half of another lane's.
__device__ inline float sum_over_lanes(float (&number)[strip_lanes], int lane) {
#pragma unroll
  for (int half = strip_lanes / 2; half > 0; half /= 2) {
    const bool upper = lane & half;
#pragma unroll
    for (int k = 0; k < half; ++k) {
      const float kept = upper ? number[k + half] : number[k], given = upper ? number[k] : number[k + half];
      number[k] = kept + __shfl_xor_sync(0xffffffff, given, half);
    }
  }
  return number[0];
}

// Add the products of a warp's taps with the lane's channels of a strip to what is wanted. `attn` points to the strip's
// attention of the first of these taps in shared memory; the gradient of attn takes its place.
template <typename Traits>
__device__ void reduce_taps(const float (&value)[strip_pixels + Traits::row_taps - 1][lane_channels],
                            const float (&grad)[strip_pixels][lane_channels], int taps, float* attn, bool first_slice,
                            const float* mul, int lane, float (&sum_mul)[Traits::row_taps][lane_channels],
                            float (&sum_add)[Traits::row_taps][lane_channels]) {
  using Want = typename Traits::Want;
#pragma unroll
  for (int j = 0; j < Traits::row_taps; ++j, attn += Traits::attn_pitch, mul += slice_channels) {
    if (j >= taps) break;
    float tap_attn[2][lane_channels], factor[lane_channels], sum_attn[padded_pixels] = {};
    if constexpr (Want::mul) {
      load_shared(attn, tap_attn[0]);
      load_shared(attn + lane_channels, tap_attn[1]);
    }
    if constexpr (Want::scaled) load_shared(mul, factor);
#pragma unroll
    for (int p = 0; p < strip_pixels; ++p) {
#pragma unroll
      for (int c = 0; c < lane_channels; ++c) {
        const float product = grad[p][c] * value[p + j][c];
        if constexpr (Want::scaled) {
          sum_attn[p] += factor[c] * product;
        } else if constexpr (Want::attn) {
          sum_attn[p] += grad[p][c] * value[p + j][c];
        }
        if constexpr (Want::mul) sum_mul[j][c] += tap_attn[p / lane_channels][p % lane_channels] * product;
        if constexpr (Want::add) sum_add[j][c] += grad[p][c] * value[p + j][c];
      }
    }
    if constexpr (Want::attn) {
      const float sum = sum_over_lanes(sum_attn, lane);
      // Exchanges order no memory: another lane may not have read attn yet.
      if constexpr (Want::mul) __syncwarp();
      attn[lane] = sum + (first_slice ? 0 : attn[lane]);
    }
  }
}

// Write a warp's taps of a tile's gradients of attn, which are in shared memory as stage_attn lays attention out.
template <typename Traits, typename T>
__device__ void unstage_attn_taps(const Map<T>& attn, const StripTiling& tiling, int64_t sample, int tile,
                                  int64_t first_tap, int taps, const float* from) {
  constexpr int row_taps = Traits::row_taps;
  for (int index = 0; index < Traits::strips; ++index) {
    const Strip strip = tiling.strip(tile, index);
    for (int element = reread_thread_index() % 32; strip.inside && element < strip_pixels * row_taps; element += 32) {
      const int pixel = element / row_taps, j = element % row_taps;
      if (j < taps && strip.position + pixel < strip.columns) {
        *attn.at(sample, first_tap + j, strip.row, strip.column + pixel * tiling.dilation) =
            rounded<T>(from[j * Traits::attn_pitch + index * padded_pixels + pixel]);
      }
    }
  }
}

// Write the sums over a warp's strips.
template <int K, int Taps>
__device__ void write_partial(float (&sum)[Taps][lane_channels], int taps, int count, float* to) {
#pragma unroll
  for (int j = 0; j < Taps; ++j) {
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) {
      const float total = sum_over_strips(sum[j][c]);
      if (threadIdx.x % 32 < strip_lanes && c < count && j < taps) to[c * K * K + j] = total;
    }
  }
}

// With the gradient of attn, a thread block takes all slices of a head, one after another. Where these are several, it
// leaves the matrices' gradients to another launch, whose thread blocks take one slice each.
template <typename Traits>
__global__ void __launch_bounds__(Traits::threads, Traits::resident_blocks)
    reduce_kernel(const ReduceArguments<typename Traits::T> a) {
  using T = typename Traits::T;
  using Want = typename Traits::Want;
  constexpr int K = Traits::K, row_taps = Traits::row_taps, radius = K / 2;
  constexpr bool vector = Traits::vector;
  float* attn = shared_memory<float>();
  float* mul = attn + Traits::mul_offset;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % strip_lanes;
  const int first_row = blockIdx.z % Traits::row_parts * Traits::rows, i = first_row + warp;
  const int first_tap = blockIdx.z / Traits::row_parts * row_taps;
  int taps = row_taps;
  if constexpr (Traits::row_parts * Traits::tap_parts > 1) {
    if (K - first_tap < row_taps) taps = K - first_tap;
    if (i >= K) taps = 0;
  }
  float* warp_attn = attn + (warp * K + first_tap) * Traits::attn_pitch;
  const int sum_index = blockIdx.x / a.chunks, chunk = blockIdx.x % a.chunks;
  const int head = Want::attn ? blockIdx.y : blockIdx.y / a.head_slices;
  const int first_slice = Want::attn ? 0 : blockIdx.y % a.head_slices;
  const int end_slice = Want::attn ? a.head_slices : first_slice + 1;
  const int head_channel = head * a.head_channels;
  const int64_t value_byte_stride = dilated_stride(a.value, a.tiling.dilation);
  const int64_t grad_byte_stride = dilated_stride(a.grad, a.tiling.dilation);

  int staged_slice = -1;
  float sum_mul[row_taps][lane_channels] = {}, sum_add[row_taps][lane_channels] = {};
  for (int unit = chunk; unit < a.sum_samples * a.tiling.tiles; unit += a.chunks) {
    const int sample = sum_index * a.sum_samples + unit / a.tiling.tiles, tile = unit % a.tiling.tiles;
    for (int slice = first_slice; slice < end_slice; ++slice) {
      const int first = slice * slice_channels + lane * lane_channels, count = a.head_channels - first;
      if constexpr (Want::scaled || Want::mul) __syncthreads();
      if (Want::scaled && staged_slice != slice) {
        stage_matrix<Traits>(a.mul, sum_index, head_channel + slice * slice_channels,
                             a.head_channels - slice * slice_channels, mul);
        staged_slice = slice;
      }
      if constexpr (Want::mul) stage_attn<Traits>(a.attn, a.tiling, sample, tile, head, first_row, attn);
      if constexpr (Want::scaled || Want::mul) __syncthreads();
#pragma unroll 1
      for (int base = 0; base < Traits::strips; base += warp_strips) {
        const int index = base + threadIdx.x % 32 / strip_lanes;
        const Strip strip = a.tiling.strip(tile, index);
        const int row = strip.row + (i - radius) * a.tiling.dilation;
        const int left = strip.column + (first_tap - radius) * a.tiling.dilation;
        const bool row_inside = count > 0 && i < K && within(row, a.tiling.height);
        float grad[strip_pixels][lane_channels], value[strip_pixels + row_taps - 1][lane_channels];
        load_row<T, vector>(a.grad.at(sample, head_channel + first, strip.row, strip.column), grad_byte_stride,
                            a.grad.channel_stride, count, count > 0 ? columns_inside(strip, 0) : 0, grad);
        load_row<T, vector>(a.value.at(sample, head_channel + first, row, left), value_byte_stride,
                            a.value.channel_stride, count, row_inside ? columns_inside(strip, first_tap - radius) : 0,
                            value);
        const float* row_mul = mul + ((i < K ? i : 0) * K + first_tap) * slice_channels + lane * lane_channels;
        reduce_taps<Traits>(value, grad, taps, warp_attn + index * padded_pixels, slice == 0, row_mul, lane, sum_mul,
                            sum_add);
      }
    }
    if constexpr (Want::attn) {
      // A warp writes what it computed itself.
      __syncwarp();
      unstage_attn_taps<Traits>(a.grad_attn, a.tiling, sample, tile, (int64_t(head) * K + i) * K + first_tap, taps,
                                warp_attn);
      __syncwarp();
    }
  }
  const int first = first_slice * slice_channels + lane * lane_channels, count = a.head_channels - first;
  const int64_t partial = (int64_t(blockIdx.x) * a.channels + head_channel + first) * K * K + i * K + first_tap;
  if constexpr (Want::mul) write_partial<K>(sum_mul, taps, count, a.partial_mul + partial);
  if constexpr (Want::add) write_partial<K>(sum_add, taps, count, a.partial_add + partial);
}

}  // namespace elsa::ghost_head
