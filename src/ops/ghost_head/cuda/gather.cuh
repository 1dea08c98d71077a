// The gather of ghost_head for stride 1 and a compile-time K: the forward, and the gradient of value.
//
// A thread block has a slice of the ghost matrices and the attention of a tile in shared memory as float32. A lane has
// its sums and one row of the source in registers. Each tap costs two multiply-adds a channel.
#pragma once

#include "tile.cuh"

namespace elsa::ghost_head {

using namespace cuda;

template <typename Number, int KernelSize, bool Vector, bool Mul, bool Add, bool Adjoint>
struct GatherTraits {
  using T = Number;
  static constexpr int K = KernelSize, taps = K * K;
  static constexpr bool vector = Vector, mul = Mul, add = Add, adjoint = Adjoint;

  // Beyond K = 11 the attention of 128 threads does not fit beside the matrices in most_shared_bytes.
  static constexpr int threads = K <= 11 ? 128 : 64;
  static constexpr int strips = threads / strip_lanes;

  // Of a multiprocessor's 65536 registers 128 threads have 168 each, or 255 where loads of single channels take more
  // for their addresses.
  static constexpr int resident_blocks = vector ? 3 : 2;

  // Attention is staged with a load of every row in flight, each of which needs a register: for large K, one.
  static constexpr int staged_rows = K, rows_in_flight = K <= 7 ? K : 1;

  // Shared memory, in floats: attention, mul, add.
  static constexpr int attn_pitch = pitch_of_attn(strips);
  static constexpr int mul_offset = taps * attn_pitch, add_offset = mul_offset + (mul ? taps * slice_channels : 0);
  static constexpr size_t shared_bytes = sizeof(float) * (add_offset + (add ? taps * slice_channels : 0));
};

template <typename T>
struct GatherArguments {
  Map<T> out;
  Map<const T> source, attn;
  Matrix<T> mul, add;
  StripTiling tiling;
  int batch, head_channels, head_slices;
};

// Add a row of taps to the lane's sums.
template <typename Traits>
__device__ void gather_taps(const float (&source)[strip_pixels + Traits::K - 1][lane_channels], const float* attn,
                            const float* mul, const float* add, float (&sum)[strip_pixels][lane_channels]) {
#pragma unroll
  for (int j = 0; j < Traits::K; ++j) {
    float tap_attn[2][lane_channels], factor[lane_channels], term[lane_channels];
    load_shared(attn + j * Traits::attn_pitch, tap_attn[0]);
    load_shared(attn + j * Traits::attn_pitch + lane_channels, tap_attn[1]);
    if constexpr (Traits::mul) load_shared(mul + j * slice_channels, factor);
    if constexpr (Traits::add) load_shared(add + j * slice_channels, term);
#pragma unroll
    for (int p = 0; p < strip_pixels; ++p) {
#pragma unroll
      for (int c = 0; c < lane_channels; ++c) {
        float weight = tap_attn[p / lane_channels][p % lane_channels];
        if constexpr (Traits::mul) weight *= factor[c];
        if constexpr (Traits::add) weight += term[c];
        sum[p][c] += weight * source[p + j][c];
      }
    }
  }
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::threads, Traits::resident_blocks)
    gather_kernel(const GatherArguments<typename Traits::T> a) {
  using T = typename Traits::T;
  constexpr int K = Traits::K, radius = K / 2, strips = Traits::strips;
  constexpr bool vector = Traits::vector;
  float* attn = shared_memory<float>();
  float* mul = attn + Traits::mul_offset;
  float* add = attn + Traits::add_offset;

  // Where channels lie side by side so do the lanes of a strip; elsewhere neighbouring lanes take neighbouring strips.
  const int lane = vector ? threadIdx.x % strip_lanes : threadIdx.x / strips;
  const int index = vector ? threadIdx.x / strip_lanes : threadIdx.x % strips;
  const int head = blockIdx.y / a.head_slices, first = blockIdx.y % a.head_slices * slice_channels;
  const int64_t first_channel = int64_t(head) * a.head_channels + first;
  const int count = a.head_channels - first, lane_count = count - lane * lane_channels;
  const int64_t byte_stride = dilated_stride(a.source, a.tiling.dilation);

  int staged_sample = -1;
  for (int unit = blockIdx.x; unit < a.batch * a.tiling.tiles; unit += gridDim.x) {
    const int sample = unit / a.tiling.tiles, tile = unit % a.tiling.tiles;
    __syncthreads();
    if (staged_sample < 0 || (sample != staged_sample && (a.mul.batch_stride | a.add.batch_stride) != 0)) {
      if constexpr (Traits::mul) stage_matrix<Traits>(a.mul, sample, first_channel, count, mul);
      if constexpr (Traits::add) stage_matrix<Traits>(a.add, sample, first_channel, count, add);
      staged_sample = sample;
    }
    stage_attn<Traits>(a.attn, a.tiling, sample, tile, head, 0, attn);
    __syncthreads();

    const Strip strip = a.tiling.strip(tile, index);
    if (!strip.inside || lane_count <= 0) continue;
    const int left = strip.column - radius * a.tiling.dilation;
    const uint32_t inside = columns_inside(strip, -radius);
    const int64_t channel = first_channel + lane * lane_channels;
    float sum[strip_pixels][lane_channels] = {};
#pragma unroll 1
    for (int i = 0; i < K; ++i) {
      const int row = strip.row + (i - radius) * a.tiling.dilation;
      if (!within(row, a.tiling.height)) continue;
      float source[strip_pixels + K - 1][lane_channels];
      load_row<T, vector>(a.source.at(sample, channel, row, left), byte_stride, a.source.channel_stride, lane_count,
                          inside, source);
      gather_taps<Traits>(source, attn + i * K * Traits::attn_pitch + index * padded_pixels,
                          mul + i * K * slice_channels + lane * lane_channels,
                          add + i * K * slice_channels + lane * lane_channels, sum);
    }
#pragma unroll
    for (int p = 0; p < strip_pixels; ++p) {
      const int column = strip.column + p * a.tiling.dilation;
      if (column < a.tiling.width) {
        store_channels<T, vector>(sum[p], a.out.at(sample, channel, strip.row, column), a.out.channel_stride,
                                  lane_count);
      }
    }
  }
}

}  // namespace elsa::ghost_head
